"""CAP-VSTNet's network and transfer against the authors' code (linfengWen98/CAP-VSTNet, MIT), and its inverse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.losses.whitening import Moments, cholesky_transfer
from lightning_modules.networks.cap_vst import Mode, ReversibleNetwork, ReversibleOptions, squeeze, unsqueeze
from tests.formulas import gradient_sums, set_he_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "cap_vst.npz"
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
SIZES: dict[Mode, tuple[tuple[int, int], tuple[int, int]]] = {
    "photo": ((16, 20), (20, 12)),
    "art": ((40, 48), (48, 32)),
}


def made(mode: Mode, **options: bool) -> ReversibleNetwork:
    network = ReversibleNetwork(ReversibleOptions(mode, **options))
    set_he_weights_(network.parameters())
    for parameter in network.parameters():
        parameter.data.mul_(0.5)
    return network


def apart(found: Tensor, expected: np.ndarray) -> float:
    theirs = torch.from_numpy(expected)
    return float((found.detach().double() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("mode", ["photo", "art"])
def test_features_transfer_and_gradients_are_the_authors(mode: Mode, dtype: torch.dtype) -> None:
    network = made(mode)
    content, style = (waves(1, 3, *size, number=n).to(dtype) for n, size in enumerate(SIZES[mode], 1))
    features, theirs = network(content), network(style)
    mapped = cholesky_transfer(Moments.of(features), Moments.of(theirs)).blended(0.7)(features)
    picture = network.inverse(mapped, SIZES[mode][0])
    (picture * waves(*picture.shape, number=3)).sum().backward()
    with np.load(REFERENCE) as reference:
        assert apart(features.flatten()[::7], reference[f"{mode}/features"]) < TOLERANCES[dtype]
        # Whitening blows rounding errors up.
        assert apart(picture, reference[f"{mode}/picture"]) < 10 * TOLERANCES[dtype]
        if dtype == torch.float64:
            assert apart(gradient_sums(network), reference[f"{mode}/sums"]) < 1e-7


def test_the_published_size() -> None:
    with torch.device("meta"):
        network = ReversibleNetwork()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_089_936


@pytest.mark.parametrize("mode", ["photo", "art"])
@pytest.mark.parametrize(("height", "width"), [(32, 48), (31, 45), (1, 1), (2, 9)])
def test_the_picture_comes_back(mode: Mode, height: int, width: int) -> None:
    torch.manual_seed(0)
    network, images = ReversibleNetwork(ReversibleOptions(mode)), torch.rand(1, 3, height, width) * 2 - 1
    with torch.no_grad():
        features = network(images)
        assert features.shape[1] == network.channels
        back = network.inverse(features, (height, width))
    assert back.shape == images.shape
    # In [0, 1], as the authors count.
    assert (back - images).abs().max() / 2 < 1e-6


def test_squeezing_is_undone() -> None:
    x = waves(2, 3, 4, 6)
    assert squeeze(x).shape == (2, 12, 2, 3)
    assert torch.equal(unsqueeze(squeeze(x)), x)
    assert torch.equal(squeeze(x)[:, :3], x[:, :, ::2, ::2])


@pytest.mark.parametrize("tile", [12, 16])
def test_tiles_change_nothing(tile: int) -> None:
    network, images = made("photo"), waves(1, 3, 42, 61, number=1).float()
    with torch.no_grad():
        whole = network(images)
        torch.testing.assert_close(network(images, tile), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(network.inverse(whole, (42, 61), tile), images, rtol=0, atol=1e-5)


def test_blocks_recomputed_in_the_backward_pass_change_nothing() -> None:
    gradients = []
    for on in (False, True):
        network = made("photo", gradient_checkpointing=on)
        network(waves(1, 3, 8, 12, number=1).float()).square().sum().backward()
        gradients.append(gradient_sums(network))
    torch.testing.assert_close(gradients[0], gradients[1])
