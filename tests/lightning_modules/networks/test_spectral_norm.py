"""Spectral norm against singular values."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.spectral_norm import add_spectral_norm_


class OneOfEach(nn.Module):
    """Every kind of layer that spectral norm is for."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.linear = nn.Linear(6, 4 * 4 * 4)
        self.up = nn.ConvTranspose2d(4, 7, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.down = nn.Conv2d(7, 3, 4, stride=2, padding=1)

    def forward(self, labels: Tensor) -> Tensor:
        return self.down(self.norm(self.up(self.linear(self.embedding(labels)).unflatten(1, (4, 4, 4)))))


@pytest.mark.slow
def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    torch.manual_seed(0)
    network = OneOfEach()
    bare = copy.deepcopy(network)
    add_spectral_norm_(network)
    with torch.no_grad():
        for _ in range(200):  # power iterations
            network(torch.arange(5))
    for name, output_dimension in (("embedding", 0), ("linear", 0), ("up", 1), ("down", 0)):
        weight = getattr(network, name).weight.detach().movedim(output_dimension, 0).flatten(1).numpy()
        original = getattr(bare, name).weight.detach().movedim(output_dimension, 0).flatten(1).numpy()
        top = np.linalg.svd(original, compute_uv=False)[0]
        assert top != pytest.approx(1, rel=0.05)
        np.testing.assert_allclose(np.linalg.svd(weight, compute_uv=False)[0], 1, rtol=1e-3)
        np.testing.assert_allclose(weight, original / top, rtol=2e-3, atol=1e-5)


def test_spectral_norm_survives_copies_and_checkpoints() -> None:
    torch.manual_seed(0)
    network, other = OneOfEach(), OneOfEach()
    bare = set(network.state_dict())
    add_spectral_norm_(network)
    add_spectral_norm_(other)
    network(torch.arange(5))
    added = set(network.state_dict()) - bare
    assert {key for key in added if key.startswith("up.")} == {
        "up.parametrizations.weight.original",
        "up.parametrizations.weight.0._u",
        "up.parametrizations.weight.0._v",
    }
    twin = copy.deepcopy(network)
    other.load_state_dict(network.state_dict())
    for module in (network, twin, other):
        module.eval()
    outputs = [module(torch.arange(5)) for module in (network, twin, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
