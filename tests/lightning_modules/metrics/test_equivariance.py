"""EQ-T and EQ-R against the authors' figures, and StyleGAN3 beside StyleGAN2."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.metrics.equivariance import (
    Equivariance,
    Renderer,
    decibels,
    rotation,
    rotation_error,
    translation,
    translation_error,
)
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import Generator, SynthesisOptions
from tests.lightning_modules.networks.stylegan2.mapped import figures, inputs
from tests.lightning_modules.networks.stylegan3.mapped import FIXTURES, generator


@torch.no_grad()
def test_errors_are_the_authors() -> None:
    expected, network = figures("equivariance", FIXTURES), generator("rotation")
    ws = network.broadcast(network.mapping(inputs()["z"], None))
    original = network.synthesis(ws)
    side = original.shape[3]
    for number, shift in enumerate([(3, -2), (-4, 1)]):
        moved = network.synthesis(ws, transform=translation(shift, side, side))
        found = translation_error(original, moved, shift)
        torch.testing.assert_close(found, expected[f"translation{number}"], rtol=1e-2, atol=0)
    for number, angle in enumerate([0.3, -1.7]):
        turned = network.synthesis(ws, transform=rotation(-angle))
        found = rotation_error(original, turned, angle)
        torch.testing.assert_close(found, expected[f"rotation{number}"], rtol=1e-2, atol=0)


def test_16_bits_of_the_training_change_no_number() -> None:
    original, turned = torch.rand(2, 1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = translation((3, -2), 40, 40), rotation(0.3), rotation_error(original, turned, 0.3)
    # As bf16-true has it in an evaluation.
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = translation((3, -2), 40, 40), rotation(0.3), rotation_error(original, turned, 0.3)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_decibels_of_a_known_error() -> None:
    # Of images in [-1, 1] the peak is 2.
    assert decibels(torch.tensor(4.0 * 50), torch.tensor(50.0)) == pytest.approx(0)
    assert decibels(torch.tensor(0.04 * 50), torch.tensor(50.0)) == pytest.approx(20)
    assert decibels(torch.tensor(0.0), torch.tensor(50.0)) == math.inf


@torch.no_grad()
def test_stylegan3_moves_with_its_input_where_stylegan2_does_not() -> None:
    torch.manual_seed(0)
    old = Generator(
        MappingOptions(layers=2, w_dim=12), SynthesisOptions(256, 24), latent_dim=8, resolution=32, channels=3
    )
    new = generator("translation")
    constant = old.synthesis.blocks[0].constant
    shift = (8, 0)

    def by_constant(transform: Tensor) -> Tensor:
        # A quarter of the image is a place of the constant.
        places = round(-transform[0, 2].item() * 4)
        old.synthesis.blocks[0].constant.data = constant.roll(places, 2)
        images = old(inputs()["z"], noise="none")
        old.synthesis.blocks[0].constant.data = constant
        return images

    ws = new.broadcast(new.mapping(inputs()["z"], inputs()["labels"]))
    transform = translation(shift, 32, 32)
    low = decibels(*translation_error(by_constant(torch.eye(3)), by_constant(transform), shift))
    high = decibels(*translation_error(new.synthesis(ws), new.synthesis(ws, transform=transform), shift))
    assert low < 30
    assert high > low + 20


def test_what_moves_and_turns_with_its_input_is_measured_so() -> None:
    side = 48
    places = (torch.arange(side) + 0.5 - side / 2) / side
    pixels = torch.stack([places.expand(side, side), places[:, None].expand(side, side), torch.ones(side, side)], 2)

    def waves(index: Tensor, transforms: Tensor) -> Tensor:
        where = torch.einsum("nij,hwj->nihw", transforms, pixels)
        return torch.sin(2 * math.pi * (2 * where[:, :1] + index.view(-1, 1, 1, 1))) * torch.cos(9 * where[:, 1:2])

    def still(index: Tensor, transforms: Tensor) -> Tensor:
        return waves(index, torch.eye(3).expand(len(index), 3, 3))

    def measured(render: Renderer, size: int) -> dict[str, float]:
        metric = Equivariance(render, ("eqt", "eqr"), seed=1)
        for index in torch.arange(3).split(size):
            metric.update(index)
        return metric.compute()

    found = measured(waves, 2)
    assert found["eqt"] > 90
    assert found["eqr"] > 40
    assert measured(waves, 3) == pytest.approx(found, rel=1e-6)
    assert max(measured(still, 3).values()) < 20
    only = Equivariance(waves, ("eqr",), seed=1)
    only.update(torch.arange(3))
    assert only.compute() == {"eqr": pytest.approx(found["eqr"])}


@torch.no_grad()
def test_each_image_has_its_own_transform() -> None:
    network = generator("rotation")
    ws = network.broadcast(network.mapping(inputs()["z"], None))
    transforms = torch.stack([rotation(0.1 * (number + 1)) for number in range(len(ws))])
    alone = [network.synthesis(one[None], transform=of_one) for one, of_one in zip(ws, transforms, strict=True)]
    torch.testing.assert_close(network.synthesis(ws, transform=transforms), torch.cat(alone), atol=1e-5, rtol=1e-4)
