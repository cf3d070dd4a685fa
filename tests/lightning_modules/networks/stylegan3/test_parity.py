"""StyleGAN3's generators against the authors' code with the same weights: outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from tests.lightning_modules.networks.stylegan2.mapped import figures, inputs, of_parameters, projections, same, sparse
from tests.lightning_modules.networks.stylegan3.mapped import FIXTURES, TRANSFORM, generator


@pytest.mark.parametrize("name", ["translation", "rotation"])
def test_the_generator(name: str, dtype: torch.dtype) -> None:
    expected, given, network = figures(name, FIXTURES), inputs(), generator(name)
    z, labels = given["z"], given["labels"]
    ws = network.broadcast(network.mapping(z, labels))
    images, magnitudes = network.synthesis.measured(ws)
    same(sparse(images), expected["images"], dtype)
    same(magnitudes, expected["magnitudes"], dtype)
    assert torch.equal(images, network(z, labels))
    (images * given["directions"]).mean().backward()
    same(projections(of_parameters(network)), expected["generator_gradients"], dtype)
    truncated = network(z, labels, truncation_psi=0.6, truncation_cutoff=3)
    same(sparse(truncated), expected["truncated"], dtype)
    moved = network.synthesis(ws, transform=torch.tensor(TRANSFORM))
    same(sparse(moved), expected["moved"], dtype)
