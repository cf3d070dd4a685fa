"""StyleGAN3's generators against the authors' code with the same weights: outputs and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.lightning_modules.networks.stylegan2.mapped import figures, inputs, of_parameters, projections, sparse
from tests.lightning_modules.networks.stylegan3.mapped import FIXTURES, TRANSFORM, generator

#: By precision: the largest difference, as a share of the largest figure.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(params=TOLERANCES, ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def same(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    apart = (found.detach().double() - expected).abs().max() / expected.abs().max()
    assert apart < TOLERANCES[dtype], f"{apart:.2g}"


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
