"""Steps that are not finite: nothing changes, everything is counted, and training ends when they don't stop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from lightning_modules.core.stability import (
    LossScalePerNetwork,
    NonFiniteError,
    Skips,
    advance,
    finite_or_nan,
    mark_nonfinite,
)
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from tests.trainers import bare_trainer

SIZES: dict[str, Any] = {"resolution": 32, "channels": 1, "latent_dim": 8, "generator": GeneratorOptions(8)}
SMALL: dict[str, Any] = {**SIZES, "discriminator": DiscriminatorOptions(8)}


class PlainSGD(DCGAN):
    """With optimizers that know no flag on the device."""

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        return {name: SGD(getattr(self, name).parameters(), 1e-3) for name in ("generator", "discriminator")}


def batches(steps: int, bad: tuple[int, ...]) -> DataLoader[Any]:
    images = torch.rand(steps, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for step in bad:
        images[step, 0, 0, 0, 0] = torch.nan
    return DataLoader([{"image": image} for image in images], batch_size=None)


class Weights(L.Callback):
    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []
        self.moments: list[Any] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.after.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})
        self.moments.append(copy.deepcopy([optimizer.state_dict() for optimizer in trainer.optimizers]))


def train(module: DCGAN, data: DataLoader[Any], path: Path, **options: Any) -> Weights:
    weights = Weights()
    trainer = bare_trainer(path, callbacks=[weights], **options)
    trainer.fit(module, data)
    return weights


@pytest.mark.parametrize("family", [DCGAN, PlainSGD])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_bad_step_leaves_no_trace(family: type[DCGAN], clip: float | None, tmp_path: Path) -> None:
    module = family(**SMALL, gradient_clip_norm=clip)
    weights = train(module, batches(5, bad=(2,)), tmp_path)
    assert module.skips.totals() == {"discriminator": 1, "generator": 0}
    for name, tensor in weights.after[2].items():
        if name.startswith("discriminator") and not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, weights.after[1][name]), name
    before, after = (weights.moments[step][1]["state"] for step in (1, 2))
    for number, entry in before.items():
        for key, value in entry.items():
            assert torch.equal(after[number][key], value), (number, key)
    assert all(torch.isfinite(tensor).all() for tensor in weights.after[-1].values())
    changed = [name for name, tensor in weights.after[4].items() if not torch.equal(tensor, weights.after[2][name])]
    assert any(name.startswith("discriminator") for name in changed)


def test_a_loss_that_is_not_finite_makes_every_gradient_nan() -> None:
    assert finite_or_nan(torch.tensor(-2e30), 1 / 3) == torch.tensor(1.0) / 3
    assert finite_or_nan(torch.tensor(1.5, dtype=torch.bfloat16)).dtype == torch.bfloat16
    for bad in (torch.inf, -torch.inf, torch.nan):
        weight = torch.tensor(2.0, requires_grad=True)
        loss = weight * 3 + torch.tensor(bad)
        loss.backward(gradient=finite_or_nan(loss))
        assert weight.grad is not None
        assert weight.grad.isnan()


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [1.0, torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_is_marked(clip: float | None, dtype: torch.dtype, bad: float) -> None:
    parameters = [torch.zeros(3, dtype=dtype) for _ in range(3)]
    for parameter, value in zip(parameters[:2], (1.0, bad), strict=True):
        parameter.grad = torch.tensor([0.5, value, 0.25], dtype=dtype)
    flag = torch.zeros(())
    mark_nonfinite(flag, parameters, clip_norm=clip)
    assert flag.item() == (bad != 1.0)
    if bad == 1.0:
        norm = (2 * (0.5**2 + 1 + 0.25**2)) ** 0.5
        assert parameters[0].grad is not None
        assert parameters[0].grad[0].item() == pytest.approx(0.5 / (norm if clip else 1.0), rel=1e-2)


@pytest.mark.slow
def test_training_ends_after_too_many_bad_steps_in_a_row(tmp_path: Path) -> None:
    module = DCGAN(**SMALL)
    module.nonfinite_limit = 4
    with pytest.raises(NonFiniteError, match=r"^discriminator: .* last 6 of its updates, up to step 8 \(32 im"):
        train(module, batches(20, bad=tuple(range(2, 20))), tmp_path)
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    scattered = DCGAN(**SMALL)
    scattered.nonfinite_limit = 2
    train(scattered, batches(12, bad=(1, 3, 5, 7, 9)), tmp_path)
    assert scattered.skips.totals()["discriminator"] == 5


def test_counting_goes_on_after_a_resume() -> None:
    skips = Skips()
    for flag in (1.0, 0.0, 1.0):
        skips.flag("generator", torch.device("cpu")).fill_(flag)
    again = Skips()
    again.load(skips.totals())
    again.note("generator", 1.0)
    assert again.totals() == {"generator": 3}


def test_a_loss_scale_advances_like_torchs_own() -> None:
    options: dict[str, Any] = {"init_scale": 8.0, "growth_interval": 3}
    ours, theirs = torch.amp.GradScaler("cpu", **options), torch.amp.GradScaler("cpu", **options)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], 0.0)
    for overflow in (False, False, False, True, False, False, False, False, True, True):
        weight.grad = torch.full((1,), torch.inf if overflow else 1.0)
        theirs.scale(torch.zeros(1))
        theirs.step(optimizer)
        theirs.update()
        advance(ours, overflow=overflow)
        assert ours.state_dict() == theirs.state_dict()


def test_fp16_overflow_of_one_network_leaves_the_others_scale(tmp_path: Path) -> None:
    module = DCGAN(
        **SIZES,
        discriminator=DiscriminatorOptions(8, spectral_norm=True, normalization="none"),
        gradient_clip_norm=10.0,
        loss="hinge",
    )
    weights = train(module, batches(4, bad=(1,)), tmp_path, plugins=[MixedPrecision("16-mixed", "cpu")])
    plugin: Any = module.trainer.precision_plugin
    assert isinstance(plugin, LossScalePerNetwork)
    assert plugin.state_dict()["discriminator"]["scale"] == 2.0**15
    assert plugin.state_dict()["generator"]["scale"] == 2.0**16
    first, last = weights.after[0], weights.after[-1]
    assert any(not torch.equal(first[name], last[name]) for name in first if name.startswith("generator"))
