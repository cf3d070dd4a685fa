"""CycleGAN's generator against the authors' code (taesungp/contrastive-unpaired-translation has it as well)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.networks.resnet_generator import PICTURE, ResnetGenerator, ResnetGeneratorOptions
from tests.formulas import gradient_sums, set_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks"


def small(**options: bool) -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(ResnetGeneratorOptions(8, 2, **options))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("fixture", "antialias"), [("cyclegan", False), ("cut", True)])
def test_outputs_and_gradients_are_those_of_the_authors(
    fixture: str, antialias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    network = small(antialias=antialias).to(dtype)
    set_weights_(network)
    x = waves(2, 3, 16, 16, number=1).to(dtype).requires_grad_()
    output = network(x)
    assert output.dtype == dtype
    (output * waves(*output.shape, number=2)).sum().backward()
    assert x.grad is not None
    with np.load(REFERENCE / f"{fixture}.npz") as reference:
        for key, ours in {"output": output, "gradient": x.grad, "sums": gradient_sums(network)}.items():
            expected = torch.from_numpy(reference[f"generator/{key}"])
            assert (ours.detach().double() - expected).abs().max() <= tolerance * expected.abs().max(), key


@pytest.mark.parametrize(("blocks", "parameters"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_published_sizes(blocks: int, parameters: int) -> None:
    with torch.device("meta"):
        network = ResnetGenerator(ResnetGeneratorOptions(blocks=blocks))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (17, 30), (31, 18)])
def test_a_picture_keeps_its_size(height: int, width: int, antialias: bool) -> None:
    made = small(antialias=antialias)(torch.rand(2, 3, height, width) * 2 - 1)
    assert made.shape == (2, 3, height, width)
    assert made.isfinite().all()
    assert made.abs().max() <= 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_single_pictures_add_up(memory_format: torch.memory_format) -> None:
    network = small().double().to(memory_format=memory_format)
    x, weights = waves(2, 3, 16, 16, number=1), waves(2, 3, 16, 16, number=2)

    def gradients(pictures: int) -> Tensor:
        network.zero_grad()
        for part, own in zip(x.split(pictures), weights.split(pictures), strict=True):
            (network(part) * own).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])

    torch.testing.assert_close(gradients(1), gradients(2))


@pytest.mark.parametrize(("antialias", "sides"), [(False, (22, 8, 4, 4, 4)), (True, (22, 16, 8, 4, 4))])
def test_maps_come_in_the_order_of_their_names(antialias: bool, sides: tuple[int, ...]) -> None:
    options = ResnetGeneratorOptions(8, 2, antialias=antialias)
    network, images = ResnetGenerator(options), waves(2, 3, 16, 16).float()
    names = options.maps(3)
    *maps, picture = network(images, (*names, PICTURE))
    assert [x.shape[1] for x in maps] == list(names.values())
    assert [x.shape[2:] for x in maps] == [(side, side) for side in sides]
    assert torch.equal(picture, network(images))
    assert torch.equal(maps[0][:, :, 3:-3, 3:-3], images)
    (alone,) = network(images, ("down2",))
    assert torch.equal(alone, maps[2])
    # The norm behind a map must not change it.
    assert alone.amin() < 0
    with pytest.raises(ValueError, match="has no maps down2, down1 in this order"):
        network(images, ("down2", "down1"))


def test_pictures_do_not_see_each_other() -> None:
    network, images = small(), torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_trains_the_same() -> None:
    def gradients(gradient_checkpointing: bool) -> list[Tensor]:
        network = small(gradient_checkpointing=gradient_checkpointing)
        network(waves(2, 3, 16, 16).float()).square().sum().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    for ours, expected in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, expected)


def test_autocast_ends_in_float32() -> None:
    network, images = small(), waves(2, 3, 16, 16).float()
    with torch.autocast("cpu", torch.bfloat16):
        made = network(images)
    assert made.dtype == torch.float32
    exact = network(images)
    assert (made - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


def test_pictures_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="wants pictures of 5 pixels or more, not 8 x 4"):
        small()(torch.zeros(1, 3, 4, 8))
