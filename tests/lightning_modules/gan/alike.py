"""What every GAN's training is held to: it resumes to the bit, and other ways of the same step train alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from launch.callbacks.ema import EMA
from lightning_modules.core.family import ImageFamily
from lightning_modules.gan.stylegan2 import StyleGAN2
from tests.launch.strategies.ranks import run_ranks
from tests.trainers import bare_trainer

Family = TypeVar("Family", bound=ImageFamily)


def resumed_to_the_bit(
    path: Path,
    make: Callable[[], Family],
    rows: Callable[[int, int], Iterable[object]],
    *,
    until: int,
    batch_size: int,
    average: Callable[[], EMA] = EMA,
) -> Family:
    """Trains one module without a pause, and another one that is stopped half-way, and compares all of their state.

    Args:
        path: folder for a checkpoint.
        make: makes a module.
        rows: the batches of steps from the first number to the last.
        until: number of steps.
        batch_size: images of each.
        average: makes the callback of the moving average, ``ema``.

    Returns:
        The module that was not stopped.
    """
    whole, first, second = (make() for _ in range(3))
    bare_trainer(path, callbacks=[average()]).fit(whole, rows(0, until))
    trainer = bare_trainer(path, callbacks=[average()])
    trainer.fit(first, rows(0, until // 2))
    trainer.save_checkpoint(path / "half.ckpt")
    for value in second.state_dict().values():
        value.zero_()
    again = bare_trainer(path, callbacks=[average()], max_epochs=2)
    again.fit(second, rows(until // 2, until), ckpt_path=path / "half.ckpt", weights_only=False)
    assert (second.steps_done, second.images_seen) == (until, until * batch_size)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    for name, value in second.averages["ema"].values.items():
        assert torch.equal(whole.averages["ema"].values[name], value), name
    return whole


def trained_on_two_ranks(
    path: Path, make: Callable[[], ImageFamily], *, steps: int, **options: Any
) -> dict[str, Tensor]:
    """Trains a family on two gloo ranks, in the present default type, on the batches of test_stylegan2's ``Data``.

    Args:
        path: a folder for the ranks' files.
        make: makes the family: a function of a module, since each rank finds it by its name.
        steps: how many.
        options: of the Trainer.

    Returns:
        The family's state after training.
    """
    job: dict[str, Any] = {"module": make.__module__, "function": make.__name__, "steps": steps, "options": options}
    job["dtype"] = str(torch.get_default_dtype()).removeprefix("torch.")
    run_ranks("tests.lightning_modules.gan.rank_program", path, [job], ranks=2)
    state: dict[str, Tensor] = torch.load(path / "trained.pt")
    return state


def trained_alike(path: Path, one: ImageFamily, other: ImageFamily, rows: Iterable[object]) -> None:
    """Asserts that two modules with the same weights come to the same by training on ``rows``: see ``moved_alike``."""
    before = copy.deepcopy(one.state_dict())
    for module in (one, other):
        bare_trainer(path).fit(module, rows)
    moved_alike(one, other, before)


def two_ranks_alike(path: Path, make: Callable[[], Family], rows: Iterable[object], *, steps: int = 3) -> Family:
    """Asserts that two ranks come to the same as one by training on ``rows``: see ``moved_alike``.

    Args:
        path: a folder for the ranks' files.
        make: see ``trained_on_two_ranks``.
        rows: its batches, for one rank.
        steps: their number.

    Returns:
        The module of one rank.
    """
    one = make()
    before = copy.deepcopy(one.state_dict())
    bare_trainer(path).fit(one, rows)
    moved_alike(one, trained_on_two_ranks(path, make, steps=steps), before)
    return one


def moved_alike(
    one: ImageFamily,
    other: ImageFamily | Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    *,
    rtol: float = 1e-3,
    atol: float = 2e-5,
) -> None:
    """Asserts that a module and another, or its state, trained from ``before``, have come to the same, and moved."""
    found, moved = other.state_dict() if isinstance(other, ImageFamily) else other, 0.0
    for name, value in one.state_dict().items():
        moved = max(moved, (value - before[name]).abs().max().item() if value.is_floating_point() else 0.0)
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}")
    assert moved > 1e-2


def check_w_space(module: StyleGAN2, *, layers: int, styles: Sequence[tuple[int, int]]) -> None:
    """Checks a StyleGAN's space W: its shapes, and that its samples' images are those of ``generate``.

    Args:
        module: the GAN, in eval mode.
        layers: number of w of an image.
        styles: shapes of the maps from w to styles.
    """
    space, index = module.w_space(), torch.arange(3)
    ws = space.layers(space.sampled(index, seed=1))
    assert ws.shape == (3, layers, styles[0][1])
    assert [tuple(weight.shape) for weight in space.style_weights()] == styles
    torch.testing.assert_close(space.images(ws).clamp(-1, 1), module.generate(index, seed=1))
