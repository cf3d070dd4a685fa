"""The U-Net generator against the authors' code (taesungp/contrastive-unpaired-translation)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.networks.unet_generator import UnetGenerator, UnetGeneratorOptions
from tests.formulas import gradient_sums, set_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "cut.npz"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_outputs_and_gradients_are_those_of_the_authors(dtype: torch.dtype, tolerance: float) -> None:
    network = UnetGenerator(UnetGeneratorOptions(4, 5)).to(dtype)
    set_weights_(network)
    x = waves(2, 3, 32, 32, number=1).to(dtype).requires_grad_()
    output = network(x)
    (output * waves(*output.shape, number=2)).sum().backward()
    assert x.grad is not None
    with np.load(REFERENCE) as reference:
        for key, ours in {"output": output, "gradient": x.grad, "sums": gradient_sums(network)}.items():
            expected = torch.from_numpy(reference[f"unet/{key}"])
            assert (ours.detach().double() - expected).abs().max() <= tolerance * expected.abs().max(), key


@pytest.mark.parametrize(("halvings", "parameters"), [(8, 54_409_603), (7, 41_825_667)])
def test_the_published_sizes(halvings: int, parameters: int) -> None:
    """As the authors' code has them with its instance norm."""
    with torch.device("meta"):
        network = UnetGenerator(UnetGeneratorOptions(halvings=halvings))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("height", "width"), [(8, 8), (17, 30), (3, 18)])
def test_a_picture_keeps_its_size(height: int, width: int) -> None:
    network, images = UnetGenerator(UnetGeneratorOptions(8, 3)), torch.rand(2, 3, height, width) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        made = network(images)
    assert made.shape == images.shape
    assert made.dtype == torch.float32
    assert made.abs().max() <= 1
