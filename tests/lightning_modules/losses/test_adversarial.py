"""Adversarial losses against the papers' formulas, in float64 with NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit

from lightning_modules.losses.adversarial import AdversarialLoss, discriminator_loss, generator_loss

LOSSES = get_args(AdversarialLoss)

Array = np.ndarray
DISCRIMINATOR: dict[str, Callable[[Array, Array], float]] = {
    "vanilla": lambda r, f: -np.mean(np.log(expit(r))) - np.mean(np.log(1 - expit(f))),
    "non_saturating": lambda r, f: -np.mean(np.log(expit(r))) - np.mean(np.log(1 - expit(f))),
    "lsgan": lambda r, f: np.mean((r - 1) ** 2) / 2 + np.mean(f**2) / 2,
    "wgan": lambda r, f: np.mean(f) - np.mean(r),
    "wgan_gp": lambda r, f: np.mean(f) - np.mean(r),
    "hinge": lambda r, f: -np.mean(np.minimum(0, -1 + r)) - np.mean(np.minimum(0, -1 - f)),
    "rpgan": lambda r, f: -np.mean(log_expit(r - f)),
}
GENERATOR: dict[str, Callable[[Array, Array], float]] = {
    "vanilla": lambda r, f: np.mean(np.log(1 - expit(f))),
    "non_saturating": lambda r, f: -np.mean(np.log(expit(f))),
    "lsgan": lambda r, f: np.mean((f - 1) ** 2) / 2,
    "wgan": lambda r, f: -np.mean(f),
    "wgan_gp": lambda r, f: -np.mean(f),
    "hinge": lambda r, f: -np.mean(f),
    "rpgan": lambda r, f: -np.mean(log_expit(f - r)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_papers_formulas(name: AdversarialLoss) -> None:
    generator = np.random.default_rng(0)
    for scale in (0.1, 1.0, 5.0):
        real, fake = scale * generator.standard_normal((2, 257))
        ours = discriminator_loss(name, torch.from_numpy(real), torch.from_numpy(fake)).item()
        assert ours == pytest.approx(DISCRIMINATOR[name](real, fake), rel=1e-5, abs=1e-6)
        ours = generator_loss(name, torch.from_numpy(fake), torch.from_numpy(real)).item()
        assert ours == pytest.approx(GENERATOR[name](real, fake), rel=1e-5, abs=1e-6)


def test_a_relativistic_generator_needs_real_logits() -> None:
    with pytest.raises(ValueError, match="rpgan compares generated images with real ones"):
        generator_loss("rpgan", torch.zeros(3))


@pytest.mark.parametrize("name", ["vanilla", "non_saturating"])
def test_logits_that_round_the_sigmoid_keep_their_loss_and_gradient(name: AdversarialLoss) -> None:
    real = torch.tensor([-200.0, 200.0], requires_grad=True)
    fake = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = discriminator_loss(name, real, fake)
    expected = -np.mean(log_expit([-200.0, 200.0])) - np.mean(log_expit([200.0, -200.0]))
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.tolist() == pytest.approx([-0.5, 0.0])
    assert fake.grad.tolist() == pytest.approx([0.0, 0.5])


def test_only_the_minimax_generator_saturates_on_confidently_rejected_images() -> None:
    def gradient(name: AdversarialLoss) -> float:
        logits = torch.tensor([-20.0], requires_grad=True)
        generator_loss(name, logits).backward()
        assert logits.grad is not None
        return logits.grad.item()

    assert gradient("vanilla") == pytest.approx(-expit(-20.0), rel=1e-4)
    assert gradient("non_saturating") == pytest.approx(-1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_reduced_in_float32(name: AdversarialLoss) -> None:
    logits = torch.full((4,), 300.0, dtype=torch.float16)  # its square overflows float16
    with torch.autocast("cpu", torch.bfloat16):
        losses = discriminator_loss(name, logits, logits), generator_loss(name, logits, logits)
    expected = DISCRIMINATOR[name](np.array([300.0]), np.array([300.0])) if name == "lsgan" else None
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)
    if expected is not None:
        assert losses[0].item() == pytest.approx(expected)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'wassertein' is unknown; choose one of vanilla, .*hinge"):
        discriminator_loss("wassertein", torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'wassertein' is unknown"):
        generator_loss("wassertein", torch.zeros(1))  # type: ignore[arg-type]
