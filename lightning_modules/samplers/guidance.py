"""Guided denoisers, made of two: D = weak + guidance (strong - weak). Samplers do not know that they are guided."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_modules.samplers.stepping import Denoiser


def classifier_free(
    conditional: Denoiser,
    unconditional: Denoiser | None,
    guidance: float,
    *,
    sigma_low: float = 0.0,
    sigma_high: float = math.inf,
) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598), if wanted in an interval of noise levels only.

    Args:
        conditional: the denoiser with its class, or another condition.
        unconditional: the denoiser without; None: the model knows no conditions.
        guidance: 1: the conditional denoiser itself, the other is never called; 0: the unconditional one itself; above
            1: further away from it. Papers that write (1 + w) D_c - w D_u mean guidance = 1 + w.
        sigma_low, sigma_high: guided where sigma_low < sigma <= sigma_high, elsewhere conditional alone (Kynkäänniemi
            et al. 2024, arXiv:2404.07724).

    Raises:
        ValueError: guidance without conditions; guidance that is no finite number; an empty interval.
    """
    if guidance != 1 and unconditional is None:
        raise ValueError(f"guidance {guidance} needs a model that was trained with classes and without; choose 1")
    return _guided(conditional, unconditional, guidance, sigma_low, sigma_high)


def autoguidance(
    model: Denoiser,
    worse: Denoiser,
    guidance: float,
    *,
    sigma_low: float = 0.0,
    sigma_high: float = math.inf,
) -> Denoiser:
    """Guidance by a worse model: smaller or trained for less long (Karras et al. 2024, arXiv:2406.02507).

    Args:
        model, worse: denoisers of the same data, with the same condition.
        guidance: 1: ``model`` itself, the other is never called; above 1: further away from ``worse``.
        sigma_low, sigma_high: as for ``classifier_free``.

    Raises:
        ValueError: guidance that is no finite number; an empty interval.
    """
    return _guided(model, worse, guidance, sigma_low, sigma_high)


def _guided(strong: Denoiser, weak: Denoiser | None, guidance: float, low: float, high: float) -> Denoiser:
    if not math.isfinite(guidance):
        raise ValueError(f"guidance {guidance}: choose a finite number; 1 is none")
    if not 0 <= low < high:
        raise ValueError(f"guidance between sigma {low} and {high}: choose 0 <= low < high")
    if guidance == 1 or weak is None:
        return strong
    other: Denoiser = weak
    everywhere = low == 0 and high == math.inf
    if guidance == 0 and everywhere:
        return other

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        better = strong(x, sigma)
        # The question waits for the device, so it is put only when there is an interval.
        inside = None if everywhere else (sigma > low) & (sigma <= high)
        if inside is not None and not inside.any():
            return better
        base = other(x, sigma).to(torch.float64)
        result = base + guidance * (better.to(torch.float64) - base)
        return result if inside is None else torch.where(inside.view(-1, *[1] * (x.ndim - 1)), result, better)

    return guided
