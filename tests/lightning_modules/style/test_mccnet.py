"""MCCNet: losses and gradients of the authors' code, controls of a picture, resuming, and two ranks against one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style
from lightning_modules.networks.mccnet import MCCNetOptions
from lightning_modules.style.mccnet import NOISE, MCCNet
from tests.formulas import gradient_sums, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.style.mccnet_weights import set_mccnet_weights_
from tests.lightning_modules.translation.domains import Domains, check_same
from tests.lightning_modules.translation.domains import train as train_domains
from tests.pictures import paintings, photographs

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "mccnet.npz"
pytestmark = pytest.mark.network


def family(**options: Any) -> MCCNet:
    torch.manual_seed(0)
    module = MCCNet(resolution=32, optimizer=OptimizerOptions(lr=1e-3, eps=1e-4), **options)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return module


def test_losses_and_gradients_are_those_of_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    # Their total variation is a sum over all of the batch, in [0, 1].
    count = 2 * 3 * 32 * 31 / 2
    module = family(tv_weight=1e-4 * count)
    set_mccnet_weights_(module.network)
    module.double().eval()
    module.encoder.double()
    monkeypatch.setattr(module, "noisy", lambda images: images + waves(*images.shape, number=3, scale=0.03))
    # The published losses are fp32 islands here.
    losses = module.losses({"image": waves(2, 3, 32, 32, number=1), "style": waves(2, 3, 32, 32, number=2)})
    losses["loss"].backward()
    with np.load(REFERENCE) as reference:
        for name in ("content", "style", "identity", "identity_features", "illumination", "tv", "loss"):
            ours = losses[name].item() * (count if name == "tv" else 1)
            assert ours == pytest.approx(reference[f"losses/{name}"].item(), rel=2e-6), name
        expected = torch.from_numpy(reference["losses/sums"])
    assert (gradient_sums(module.network) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_noise_of_the_illumination_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    module = family()
    monkeypatch.setattr(module, "rand", lambda *shape: torch.tensor([0.0, 1.0]).view(shape))
    monkeypatch.setattr(module, "randn", lambda *shape: torch.ones(shape))
    added = module.noisy(torch.zeros(2, 3, 4, 4))
    assert added[:, 0, 0, 0].tolist() == pytest.approx(NOISE)


def test_weights_below_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="illumination_weight is -1"):
        MCCNet(illumination_weight=-1.0)
    with pytest.raises(ValueError, match="identity_feature_weight is -1"):
        MCCNet(identity_feature_weight=-1.0)


# ---- a picture ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawing() -> MCCNet:
    """With factors that differ from style to style, and pictures of some contrast."""
    module = family().eval()
    with torch.no_grad():
        module.network.style.bias.copy_(torch.where(module.network.style.bias < 0, -1.0, 1.0))  # type: ignore[union-attr]
        module.network.mixing.weight.mul_(4)
        module.network.output.weight.mul_(4)
    return module


def test_alpha_goes_from_the_content_to_the_network_s_picture(drawing: MCCNet) -> None:
    content, style = photographs(48)[:1, :, :37, :43], paintings(40)[:1]
    with torch.no_grad():
        features = (drawing.encoder(picture, ("relu4_1",))["relu4_1"] for picture in (content, style))
        whole = drawing.network(*features)[..., :37, :43].clamp(-1, 1)
    torch.testing.assert_close(drawing.stylize(content, Style([style])), whole)
    torch.testing.assert_close(drawing.stylize(content, Style([style], alpha=0.0)), content)
    half = drawing.stylize(content, Style([style], alpha=0.5))
    assert (half - content).abs().mean() > 0.01
    assert (half - whole).abs().mean() > 0.01


def test_styles_mix_and_masks_put_them_into_places(drawing: MCCNet) -> None:
    content, (one, two) = photographs(192)[:1, :, :16], paintings(40).split(1)
    alone = [drawing.stylize(content, Style([style])) for style in (one, two)]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    torch.testing.assert_close(drawing.stylize(content, Style([one, two], weights=[3, 0])), alone[0])
    torch.testing.assert_close(drawing.stylize(content, Style([one, one], weights=[1, 2])), alone[0])
    left = torch.zeros(16, 192)
    left[:, :96] = 1
    masked = drawing.stylize(content, Style([one, two], masks=torch.stack([left, 1 - left])))
    # Beyond what the decoder sees of the other side.
    torch.testing.assert_close(masked[..., :60], alone[0][..., :60])
    torch.testing.assert_close(masked[..., 132:], alone[1][..., 132:])


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_tiles_make_the_same_picture(drawing: MCCNet, alpha: float) -> None:
    content, style = photographs(192)[:1, :, :24], paintings(180)[:1, :, :30]
    whole, tiled = (drawing.stylize(content, Style([style], alpha=alpha), tile=tile) for tile in (None, 88))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 70)])
def test_pictures_of_any_size_keep_it(drawing: MCCNet, height: int, width: int) -> None:
    content = photographs(72)[:1, :, :height, :width]
    masks = torch.ones(1, height, width)
    picture = drawing.stylize(content, Style([paintings(24)[:1]], masks=masks, alpha=0.5))
    assert picture.shape == content.shape
    assert picture.isfinite().all()


# ---- training -------------------------------------------------------------------------------------------------------


class Pairs(Domains):
    second, shape = "style", (2, 3, 16, 16)


train = functools.partial(train_domains, data=Pairs)


def test_a_resumed_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """With noise, movement and checkpointing."""
    made = functools.partial(family, temporal_weight=1.0, network=MCCNetOptions(gradient_checkpointing=True))
    whole = train(made(), tmp_path, 0, 2)
    train(made(), tmp_path, 0, 1)
    again = train(made(), tmp_path, 1, 2, tmp_path / "step1.ckpt")
    assert not any(name.startswith("encoder") for name in whole["state_dict"])
    check_same(whole, again)


def test_micro_batches_and_checkpointing_change_no_gradient() -> None:
    batch = {"image": photographs(32)[:2], "style": paintings(32)}

    def gradients(module: MCCNet, batches: list[dict[str, Tensor]]) -> list[Tensor]:
        # The noise of a row is its own, wherever that row is.
        module.noisy = lambda images: images + 0.03 * images.flip(3)  # type: ignore[method-assign]
        for part in batches:
            (module.losses(part)["loss"] / len(batches)).backward()
        return [parameter.grad for parameter in module.network.parameters() if parameter.grad is not None]

    expected = gradients(family(), [batch])
    parts = [{name: images[n : n + 1] for name, images in batch.items()} for n in range(2)]
    found = gradients(family(network=MCCNetOptions(gradient_checkpointing=True)), parts)
    for ours, wanted in zip(found, expected, strict=True):
        assert (ours - wanted).abs().max() <= 2e-4 * wanted.abs().max()


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [
        {"until": 1, "name": "one", "strategy": "auto", "devices": 1},
        {"until": 1, "name": "two", "strategy": "ddp", "micro_batches": 2},
    ]
    jobs = [{"family": "mccnet", **job} for job in jobs]
    run_ranks("tests.launch.strategies.rank_program", tmp_path, jobs, ranks=2)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for ours, wanted in zip(two["losses"], one["losses"], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    # In float32 Adam makes whole steps, of 2e-4, of rounding errors where a gradient is 0.
    for name, value in one["state_dict"].items():
        assert (two["state_dict"][name] - value).abs().max() < 5e-4, name


@pytest.mark.proof
def test_every_stage_of_zero_trains_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "mccnet", ("ddp", "zero1", "zero2", "zero3"), until=1)
