"""StyTr2: losses and gradients of the authors' code, controls of a picture, resuming, and two ranks against one."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style
from lightning_modules.networks.stytr2 import StyTr2Options
from lightning_modules.style.stytr2 import StyTr2
from tests.formulas import gradient_sums, set_balanced_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.translation.domains import Domains, check_same
from tests.lightning_modules.translation.domains import train as train_domains

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "stytr2.npz"
SMALL = StyTr2Options(width=32, heads=2, encoder_layers=2, transfer_layers=2)
#: Of weights after two steps of 1e-3. The losses are in float32, and Adam enlarges what small gradients have of that.
ROUNDING = 1e-6


def family(network: StyTr2Options = SMALL, **options: Any) -> StyTr2:
    torch.manual_seed(0)
    module = StyTr2(resolution=32, network=network, optimizer=OptimizerOptions(lr=1e-3, eps=1e-4), **options)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return module


def drawing(network: StyTr2Options = SMALL) -> StyTr2:
    """With weights that make pictures of some contrast; a stylizer needs no encoder."""
    module = StyTr2(network=network).eval()
    set_balanced_weights_(module.network)
    return module


@pytest.mark.network
def test_losses_and_gradients_are_those_of_the_authors() -> None:
    module = family()
    set_balanced_weights_(module.network)
    module.double().eval()
    module.encoder.double()
    # The published losses are fp32 islands here.
    losses = module.losses({"image": waves(2, 3, 64, 64, number=1), "style": waves(2, 3, 64, 64, number=2)})
    losses["loss"].backward()
    with np.load(REFERENCE) as reference:
        for name in ("content", "style", "identity", "identity_features", "loss"):
            assert losses[name].item() == pytest.approx(reference[f"losses/{name}"].item(), rel=2e-6), name
        expected = torch.from_numpy(reference["losses/sums"])
    assert (gradient_sums(module.network) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_weights_below_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="identity_weight is -1"):
        StyTr2(network=SMALL, identity_weight=-1.0)


# ---- a picture ------------------------------------------------------------------------------------------------------


def pictures(height: int = 61, width: int = 47) -> tuple[Tensor, Tensor, Tensor]:
    sizes = ((height, width), (40, 72), (33, 24))
    content, one, two = (waves(1, 3, *size, number=number, scale=0.8).float() for number, size in enumerate(sizes))
    return content, one, two


@pytest.mark.parametrize("window", [0, 3])
def test_alpha_goes_from_the_content_to_the_network_s_picture(window: int) -> None:
    module, (content, style, _) = drawing(replace(SMALL, window=window)), pictures()
    with torch.no_grad():
        whole = module.network(content, style).clamp(-1, 1)
    torch.testing.assert_close(module.stylize(content, Style([style])), whole)
    torch.testing.assert_close(module.stylize(content, Style([style], alpha=0.0)), content)
    half = module.stylize(content, Style([style], alpha=0.5))
    assert (half - content).abs().mean() > 0.01
    assert (half - whole).abs().mean() > 0.01


def test_styles_mix_and_masks_put_them_into_places() -> None:
    module, (content, one, two) = drawing(), pictures(64, 160)
    alone = [module.stylize(content, Style([style])) for style in (one, two)]
    assert (alone[0] - alone[1]).abs().mean() > 0.01
    torch.testing.assert_close(module.stylize(content, Style([one, two], weights=[3, 0])), alone[0])
    # One style everywhere, or twice the same, is that style.
    torch.testing.assert_close(module.stylize(content, Style([one], masks=torch.ones(1, 64, 160))), alone[0])
    torch.testing.assert_close(module.stylize(content, Style([one, one], weights=[1, 2])), alone[0])
    left = torch.zeros(64, 160)
    left[:, :80] = 1
    masked = module.stylize(content, Style([one, two], masks=torch.stack([left, 1 - left])))
    # Beyond what the decoder sees of the other side.
    torch.testing.assert_close(masked[..., :44], alone[0][..., :44])
    torch.testing.assert_close(masked[..., 116:], alone[1][..., 116:])


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_tiles_make_the_same_picture(alpha: float) -> None:
    module, (content, style, _) = drawing(), pictures(130, 93)
    whole, tiled = (module.stylize(content, Style([style], alpha=alpha), tile=tile) for tile in (None, 24))
    torch.testing.assert_close(tiled, whole)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 70), (64, 33)])
def test_pictures_of_any_size_keep_it(height: int, width: int) -> None:
    content, style, _ = pictures(height, width)
    picture = drawing().stylize(content, Style([style], masks=torch.ones(1, height, width), alpha=0.5))
    assert picture.shape == content.shape
    assert picture.isfinite().all()


# ---- training -------------------------------------------------------------------------------------------------------


class Pairs(Domains):
    second, shape = "style", (2, 3, 32, 32)


train = functools.partial(train_domains, data=Pairs)


@pytest.mark.network
def test_a_resumed_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """With dropout, windows, micro-batches and checkpointing."""
    network = replace(SMALL, window=2, gradient_checkpointing=True)
    whole = train(family(network, micro_batches=2), tmp_path, 0, 4)
    train(family(network, micro_batches=2), tmp_path, 0, 2)
    again = train(family(network, micro_batches=2), tmp_path, 2, 4, tmp_path / "step2.ckpt")
    assert not any(name.startswith("encoder") for name in whole["state_dict"])
    check_same(whole, again)


@pytest.mark.network
def test_micro_batches_and_checkpointing_change_nothing(tmp_path: Path) -> None:
    network = replace(SMALL, dropout=0.0)

    def state(module: StyTr2) -> dict[str, Tensor]:
        module.encoder.double()
        states: dict[str, Tensor] = train(module, tmp_path, 0, 2, precision="64-true")["state_dict"]
        return states

    expected = state(family(network))
    found = state(family(replace(network, gradient_checkpointing=True), micro_batches=2))
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < ROUNDING, name


@pytest.mark.network
def test_checkpointing_recomputes_the_same_dropout() -> None:
    batch = next(iter(Pairs(0, 1)))
    gradients = []
    for on in (False, True):
        module = family(replace(SMALL, dropout=0.3, gradient_checkpointing=on))
        torch.manual_seed(1)
        module.losses(batch)["loss"].backward()
        gradients.append([p.grad for p in module.network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def ranks(folder: Path, *jobs: dict[str, Any]) -> dict[str, Any]:
    """The jobs' checkpoints on up to two ranks, by their names."""
    run_ranks("tests.launch.strategies.rank_program", folder, [{"family": "stytr2", **job} for job in jobs], ranks=2)
    return {job["name"]: torch.load(folder / f"{job['name']}.pt", weights_only=True) for job in jobs}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.network
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    found = ranks(
        tmp_path,
        {"until": 2, "name": "one", "strategy": "auto", "devices": 1},
        {"until": 2, "name": "two", "strategy": "ddp", "micro_batches": 2},
    )
    one, two = found["one"], found["two"]
    for ours, wanted in zip(two["losses"], one["losses"], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    # In float32 Adam makes whole steps, of 2e-4, of rounding errors where a gradient is 0, as of keys' biases.
    for name, value in one["state_dict"].items():
        assert (two["state_dict"][name] - value).abs().max() < 5e-4, name


@pytest.mark.proof
@pytest.mark.network
def test_every_stage_of_zero_trains_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "stytr2", ("ddp", "zero1", "zero2", "zero3"), until=2)
