"""Muon against a plain reference, torch's own, and exact orthogonalisation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.core.muon import COEFFICIENTS, Muon, hidden_matrices, orthogonalized


def reference_orthogonalized(gradient: Tensor) -> Tensor:
    """Jordan's `zeropower_via_newtonschulz5`, in fp64 and through the singular values, which the iteration acts on."""
    u, s, vt = torch.linalg.svd(gradient.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vt


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5)])
def test_orthogonalized_acts_on_singular_values_alone(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(gradient)
    torch.testing.assert_close(found.double(), reference_orthogonalized(gradient), rtol=1e-4, atol=1e-4)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_one_step_is_the_papers() -> None:
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.randn(6, 3, 2, 2)), nn.Parameter(torch.randn(6))
    before = (weight.detach().clone(), bias.detach().clone())
    weight.grad, bias.grad = torch.randn_like(weight), torch.randn_like(bias)
    Muon([weight], [bias], lr=0.1, weight_decay=0.01).step()
    # Momentum from zero: B = 0.05 g; Nesterov's: 0.05 g + 0.95 B, of which only the direction counts.
    direction = reference_orthogonalized(weight.grad.flatten(1)).view_as(weight)
    expected = before[0] * (1 - 0.1 * 0.01) - 0.1 * 0.2 * math.sqrt(12) * direction
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        bias.detach(), before[1] * (1 - 0.1 * 0.01) - 0.1 * bias.grad.sign(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_many_steps_equal_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(6, 9)), nn.Parameter(torch.zeros(6, 9))
    theirs.data.copy_(ours.data)
    muon = Muon([ours], [], lr=0.02, weight_decay=0.1)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        ours.grad = torch.randn(6, 9)
        theirs.grad = ours.grad.clone()
        muon.step()
        torchs.step()
    # Theirs iterates in bfloat16.
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02)


def test_a_bad_step_changes_nothing_without_asking_the_device() -> None:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))]
    optimizer: Any = Muon(parameters[:1], parameters[1:], lr=0.1, weight_decay=0.1)

    def step(value: float, bad: float) -> None:
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) + value
        optimizer.found_inf = torch.tensor(bad)
        optimizer.step()

    for bad_first in (True, False):
        before = [p.detach().clone() for p in parameters]
        step(math.nan, 1.0)
        assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True)), bad_first
        step(1.0, 0.0)
        assert not any(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))
        assert all(p.isfinite().all() for p in parameters)


def test_a_loaded_count_of_steps_is_where_the_kernel_reads_it() -> None:
    trained, fresh = nn.Linear(3, 3), nn.Linear(3, 3, device="meta")
    optimizers = [Muon([network.weight], [network.bias], lr=0.1) for network in (trained, fresh)]
    trained(torch.ones(2, 3)).sum().backward()
    optimizers[0].step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    assert optimizers[0].state[trained.bias]["step"].item() == 1
    assert optimizers[1].state[fresh.bias]["step"].device.type == "meta"


def test_hidden_matrices_are_neither_first_nor_last_nor_embeddings() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Embedding(5, 3), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 1))
    assert [id(p) for p in hidden_matrices(network)] == [id(network[2].weight)]
