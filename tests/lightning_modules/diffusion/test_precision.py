"""Losses and pictures are float32 and finite, whatever the precision of the networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from tests.lightning_modules.diffusion.families import TRAINED, trained


@contextlib.contextmanager
def autocast(precision: str) -> Iterator[None]:
    """What Lightning does in a step in this precision."""
    if precision == "bf16-true":
        torch.set_default_dtype(torch.bfloat16)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)
    else:
        with torch.autocast("cpu", torch.float16 if precision == "16-mixed" else torch.bfloat16):
            yield


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("family", list(TRAINED))
def test_losses_and_pictures_are_finite_and_float32(family: str, precision: str) -> None:
    exact, module = trained(family), trained(family)
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = {"image": images, "label": torch.arange(8) % 3, "index": torch.arange(8)}
    if precision == "bf16-true":
        module, batch["image"] = module.bfloat16(), images.bfloat16()
    expected = exact.losses({**batch, "image": images})
    with autocast(precision):
        losses, held_out = module.losses(batch), module.held_out_losses(batch)
        with torch.no_grad():
            made = module.generate(torch.arange(2), seed=0)
    for name, value in [*losses.items(), *held_out.items()]:
        assert value.dtype == torch.float32, name
        assert value.isfinite(), name
    for name, value in losses.items():
        # Of consistency and of derivatives: differences of answers, which rounding drowns.
        assert value.item() == pytest.approx(expected[name].item(), rel=0.5 if family in ("ect", "meanflow") else 0.1)
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    assert made.dtype == torch.float32
    assert made.isfinite().all()
