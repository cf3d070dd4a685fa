"""Solvers of the probability flow dx/dsigma = (x - D(x, sigma)) / sigma: the same noise gives the same picture.

Each takes a denoiser, the state x = x0 + sigma e at ``sigmas[0]``, [N, ...], and the noise levels [steps + 1], float64:
falling, to 0 if wanted; or rising, which turns pictures into noise. Each returns the state at ``sigmas[-1]``, float64.
All raise ValueError for levels that are not such (``stepping.check_sigmas``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_modules.samplers.schedules import VE, Path
from lightning_modules.samplers.stepping import Callback, Denoiser, evaluate, move, observe, walk


@torch.no_grad()
def euler(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, callback: Callback | None = None) -> Tensor:
    """Euler's method in sigma, which is DDIM (Song et al. 2021, arXiv:2010.02502, eq. 12, eta = 0). Order 1."""
    x = x.to(torch.float64)
    for index, sigma, target in walk(sigmas):
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        x = move(x, denoised, sigma, target)
    return x


@torch.no_grad()
def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, path: Path = VE, callback: Callback | None = None) -> Tensor:
    """EDM's algorithm 1: Heun's method (Karras et al. 2022, arXiv:2206.00364). Order 2.

    A step takes 2 evaluations, one to 0 a single one: 18 steps of EDM take 35.

    Args:
        path: whose time and velocity the trapezoid is taken in. ``VE`` for EDM; ``FLOW`` for flows, which begin at an
            all but infinite sigma: a trapezoid in sigma cannot cross that.
    """
    x = x.to(torch.float64)
    for index, sigma, target in walk(sigmas):
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        x = heun_step(denoiser, x, denoised, sigma, target, path)
    return x


def heun_step(denoiser: Denoiser, x: Tensor, denoised: Tensor, sigma: float, target: float, path: Path = VE) -> Tensor:
    """One step of Heun's method, ``denoised`` being the answer at ``sigma``; to 0 it is Euler's, so ``denoised``."""
    if target == 0:
        return denoised
    step = path.time(target) - path.time(sigma)
    here, there = path.scale(sigma), path.scale(target)
    velocity = _velocity(x, denoised, sigma, path)
    guess = (here * x + step * velocity) / there
    ahead = _velocity(guess, evaluate(denoiser, guess, target), target, path)
    return (here * x + step / 2 * (velocity + ahead)) / there


def _velocity(x: Tensor, denoised: Tensor, sigma: float, path: Path) -> Tensor:
    data, noise = path.slopes(sigma)
    return data * denoised + noise / sigma * (x - denoised)


@torch.no_grad()
def dpmpp_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, callback: Callback | None = None) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2). Order 2; 1 evaluation a step.

    It steps in lambda = -ln sigma and extrapolates the denoised picture from the last two steps.
    """
    x = x.to(torch.float64)
    before: tuple[float, Tensor] | None = None
    for index, sigma, target in walk(sigmas):
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        estimate = denoised
        if before is not None and target > 0:  # the step to 0 is infinitely long in lambda
            last_sigma, last = before
            ratio = math.log(sigma / target) / math.log(last_sigma / sigma)
            estimate = denoised + ratio / 2 * (denoised - last)
        before = sigma, denoised
        x = move(x, estimate, sigma, target)
    return x


@torch.no_grad()
def dpmpp_2s(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, callback: Callback | None = None) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022, arXiv:2211.01095, algorithm 1, r = 1/2). Order 2.

    It steps in lambda = -ln sigma, with the denoised picture of the middle: 2 evaluations a step, 1 for one to 0.
    """
    x = x.to(torch.float64)
    for index, sigma, target in walk(sigmas):
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        if target > 0:
            middle = math.sqrt(sigma * target)
            denoised = evaluate(denoiser, move(x, denoised, sigma, middle), middle)
        x = move(x, denoised, sigma, target)
    return x
