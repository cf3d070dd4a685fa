"""RAdam against torch's own, and steps that a flag on the device skips."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.core.radam import RAdam


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in ((4, 3), (5,))]


def torchs(of: list[nn.Parameter], **options: Any) -> torch.optim.RAdam:
    return torch.optim.RAdam(of, decoupled_weight_decay=True, **options)


def step(optimizer: torch.optim.Optimizer, number: int, more: float = 0.0) -> None:
    """A step with the gradients of a number."""
    generator = torch.Generator().manual_seed(number)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) + more
    optimizer.step()


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.0, 0.5)])
def test_many_steps_equal_torchs(betas: tuple[float, float]) -> None:
    """Before and after step 6, from which on (with beta2 0.999) steps are adaptive."""
    ours, theirs = parameters(), parameters()
    options = {"lr": 0.05, "betas": betas, "eps": 1e-3, "weight_decay": 0.1}
    optimizers = RAdam(ours, **options), torchs(theirs, **options)  # type: ignore[arg-type]
    for number in range(12):
        for optimizer in optimizers:
            step(optimizer, number)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_bad_step_changes_nothing_and_is_not_counted() -> None:
    ours, theirs = parameters(), parameters()
    optimizer: Any = RAdam(ours, 0.05, weight_decay=0.1)
    reference = torchs(theirs, lr=0.05, weight_decay=0.1)
    for number, bad in enumerate((1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0)):
        before = [parameter.detach().clone() for parameter in ours]
        optimizer.found_inf = torch.tensor(float(bad))
        step(optimizer, number, more=math.nan if bad else 0.0)
        if bad:
            assert all(torch.equal(p, q) for p, q in zip(ours, before, strict=True))
        else:
            step(reference, number)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert [entry["step"].item() for entry in optimizer.state.values()] == [7, 7]


def test_scaled_gradients_are_unscaled() -> None:
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    optimizer: Any = RAdam(ours, 0.05)
    optimizer.grad_scale = torch.tensor(0.5)
    reference = torchs(theirs, lr=0.05)
    for number in range(8):
        step(reference, number)
        for parameter, other in zip(ours, theirs, strict=True):
            parameter.grad = None if other.grad is None else 0.5 * other.grad
        optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_it_goes_on_from_torchs_checkpoint_and_each_parameter_is_saved_with_a_count_of_its_own() -> None:
    theirs = parameters()
    before = torchs(theirs, lr=0.05)
    for number in range(7):
        step(before, number)
    ours = [nn.Parameter(parameter.detach().clone()) for parameter in theirs]
    optimizer = RAdam(ours, 0.05)
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    for number in range(7, 10):
        step(before, number)
        step(optimizer, number)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    saved = optimizer.state_dict()["state"]
    assert [entry["step"].item() for entry in saved.values()] == [10, 10]
    assert saved[0]["step"] is not saved[1]["step"]
