"""EQ-T and EQ-R against the authors' figures, and StyleGAN3 beside StyleGAN2."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.metrics.equivariance import decibels, rotation_error, translation_error
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import Generator, SynthesisOptions
from tests.lightning_modules.networks.stylegan2.mapped import figures, inputs
from tests.lightning_modules.networks.stylegan3.mapped import FIXTURES, generator


@torch.no_grad()
def test_errors_are_the_authors() -> None:
    expected, network = figures("equivariance", FIXTURES), generator("rotation")
    ws = network.broadcast(network.mapping(inputs()["z"], None))
    for number, shift in enumerate([(3, -2), (-4, 1)]):
        found = torch.stack(translation_error(lambda transform: network.synthesis(ws, transform=transform), shift))
        torch.testing.assert_close(found, expected[f"translation{number}"], rtol=1e-2, atol=0)
    for number, angle in enumerate([0.3, -1.7]):
        found = torch.stack(rotation_error(lambda transform: network.synthesis(ws, transform=transform), angle))
        torch.testing.assert_close(found, expected[f"rotation{number}"], rtol=1e-2, atol=0)


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
    low = decibels(*translation_error(by_constant, shift))
    high = decibels(*translation_error(lambda transform: new.synthesis(ws, transform=transform), shift))
    assert low < 30
    assert high > low + 20
