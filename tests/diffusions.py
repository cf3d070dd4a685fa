"""Diffusions of data that can be denoised exactly, float64: what samplers are measured with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from lightning_modules.samplers.stepping import Denoiser

#: A mixture of five Gaussians in the plane: weights, means and standard deviations.
WEIGHTS = torch.tensor([0.3, 0.15, 0.25, 0.1, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[1.0, 0.2], [-0.6, 1.1], [-1.2, -0.4], [0.3, -1.0], [0.1, 0.3]], dtype=torch.float64)
SPREADS = torch.tensor([0.3, 0.4, 0.35, 0.5, 0.45], dtype=torch.float64)


def mixture_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x = x0 + sigma e] of the mixture; x [N, 2], sigma [N]."""
    variances = SPREADS**2
    total = variances + sigma[:, None] ** 2
    offsets = x[:, None] - MEANS
    posterior = torch.softmax(WEIGHTS.log() - total.log() - offsets.square().sum(2) / (2 * total), 1)
    return (posterior[:, :, None] * (MEANS + (variances / total)[:, :, None] * offsets)).sum(1)


def gaussian_denoiser(spread: float, mean: float = 0.0) -> Denoiser:
    """The same of data N(mean, spread^2 I), of any shape."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        kept = spread**2 / (spread**2 + sigma**2)
        return mean + kept.view(-1, *[1] * (x.ndim - 1)) * (x - mean)

    return denoise


def solve_finely(denoiser: Denoiser, x: Tensor, start: float, end: float) -> Tensor:
    """The probability flow by SciPy's DOP853, to 11 digits; x [N, D]."""

    def slope(logarithm: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        here = torch.from_numpy(state).view_as(x)
        sigma = torch.full((len(x),), np.exp(logarithm), dtype=torch.float64)
        return (here - denoiser(here, sigma)).flatten().numpy()

    span = (np.log(start), np.log(end))
    found = solve_ivp(slope, span, x.flatten().numpy(), method="DOP853", rtol=1e-11, atol=1e-12)
    return torch.from_numpy(found.y[:, -1].copy()).view_as(x)


def counted(denoiser: Denoiser, calls: list[float]) -> Denoiser:
    """The denoiser, which also notes the noise level of each call."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma[0].item())
        return denoiser(x, sigma)

    return denoise


def standard_normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers out of a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Function = Callable[..., Tensor]
