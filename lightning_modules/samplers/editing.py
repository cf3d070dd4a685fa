"""Editing with a diffusion model: in-painting, edits from a picture, pictures to noise, paths between noises.

Pictures are in the state's space: [N, C, H, W] in [-1, 1], or latents. Results are float64. Levels and noise are
those of the samplers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gesso.common.arguments import whole
from gesso.common.ranges import Range
from lightning_modules.samplers.deterministic import euler
from lightning_modules.samplers.stepping import Denoiser, Noise, check_sigmas, evaluate, move, walk
from lightning_modules.samplers.stochastic import ancestral_step, check_eta, draw, falling


@torch.no_grad()
def inpaint(
    denoiser: Denoiser,
    pictures: Tensor,
    known: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    resamples: int = 1,
    jump: int = 1,
    eta: float = 1.0,
) -> Tensor:
    """Fills in what is unknown by ancestral sampling in which the known region is replaced after every step.

    RePaint (Lugmayr et al. 2022, arXiv:2201.09865, algorithm 1).

    Args:
        pictures: [N, ...], of any precision; values in the unknown region do not matter.
        known: bool, True where the picture is kept; of a shape that broadcasts to the pictures', such as [N, 1, H, W].
        sigmas: [steps + 1], falling to 0.
        resamples: how many times each stretch of steps is gone down; each time but the last, noise brings it back up
            (the paper's r, 10 there). 1: plain replacement.
        jump: steps of a stretch (the paper's j, 10 there).
        eta: see ``stochastic.ddpm``.

    Returns:
        float64, of the pictures' shape; the known region has exactly the pictures' values.

    Raises:
        ValueError: a mask of another type or shape; levels that do not end at 0; a number outside its range.
    """
    check_eta(eta)
    levels = _levels_to_zero(sigmas)
    whole(resamples, "resamples", Range(1))
    whole(jump, "jump", Range(1))
    _check_mask(known, pictures)
    pictures = pictures.to(torch.float64)
    x = torch.where(known, pictures, 0) + levels[0] * draw(noise, 0)
    number = 1
    for start, end in _stretches(len(levels) - 1, jump, resamples):
        if end < start:  # back up: noise of the difference of the variances
            x = x + math.sqrt(levels[end] ** 2 - levels[start] ** 2) * draw(noise, number)
            number += 1
            continue
        sigma, target = levels[start], levels[end]
        x = ancestral_step(x, evaluate(denoiser, x, sigma), sigma, target, noise, number, eta)
        noisy = pictures + target * draw(noise, number + 1) if target > 0 else pictures
        x = torch.where(known, noisy, x)
        number += 2
    return x


def _stretches(steps: int, jump: int, resamples: int) -> Iterator[tuple[int, int]]:
    """Pairs of places in the levels: (i, i + 1) is a step, (end, start) a way back up."""
    for start in range(0, steps, jump):
        end = min(start + jump, steps)
        for again in range(resamples):
            if again:
                yield end, start
            yield from ((place, place + 1) for place in range(start, end))


def _levels_to_zero(sigmas: Tensor) -> list[float]:
    falling(sigmas)
    levels = check_sigmas(sigmas)
    if levels[-1] != 0:
        raise ValueError(f"sigmas end at {levels[-1]}; in-painting needs them to end at 0")
    return levels


def _check_mask(known: Tensor, pictures: Tensor) -> None:
    if known.dtype != torch.bool:
        raise ValueError(f"the mask is {known.dtype}; it must be bool, True where the picture is known")
    try:
        fits = torch.broadcast_shapes(known.shape, pictures.shape) == pictures.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"a mask of shape {list(known.shape)} does not fit pictures of {list(pictures.shape)}")


#: A sampler with everything bound but denoiser, state and levels.
Solver = Callable[[Denoiser, Tensor, Tensor], Tensor]


def sdedit(
    denoiser: Denoiser,
    pictures: Tensor,
    strength: float,
    sigmas: Tensor,
    *,
    noise: Noise,
    solver: Solver = euler,
) -> Tensor:
    """SDEdit (Meng et al. 2022, arXiv:2108.01073): noise is added to a picture, and a sampler takes it away.

    Args:
        pictures: [N, ...].
        strength: share of the steps that are taken, in [0, 1]. 0: the pictures; 1: all of them, little is left.
        sigmas: [steps + 1], falling: those of a whole sampling.
        noise: its draw 0 is added; a stochastic solver may be given the same function.

    Returns:
        float64, of the pictures' shape.

    Raises:
        ValueError: a strength outside its range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength}: choose 0 (the picture) to 1 (all steps)")
    steps = falling(sigmas)
    pictures = pictures.to(torch.float64)
    if strength == 0:
        return pictures
    rest = sigmas[len(steps) - max(1, round(strength * len(steps))) :].to(torch.float64)
    return solver(denoiser, pictures + float(rest[0]) * draw(noise, 0), rest)


@torch.no_grad()
def invert(denoiser: Denoiser, pictures: Tensor, sigmas: Tensor, *, iterations: int = 0) -> Tensor:
    """DDIM inversion: the noise out of which ``deterministic.euler`` makes pictures (Song et al. 2021, section 4.3).

    Args:
        pictures: [N, ...]; taken for the state at the last level above 0.
        sigmas: [steps + 1], falling, as for sampling; a 0 at the end is left out.
        iterations: fixed-point iterations of each step. 0: explicit Euler steps, whose way back misses the pictures by
            a term of order 1. With some, each step becomes the inverse of a sampling step, as far as the iterations
            converge (Pan et al. 2023, arXiv:2309.04907); each costs an evaluation.

    Returns:
        The state at ``sigmas[0]``, float64. Sample it with the same levels.

    Raises:
        ValueError: iterations below 0.
    """
    whole(iterations, "iterations", Range(0))
    falling(sigmas)
    x = pictures.to(torch.float64)
    rising = sigmas[sigmas > 0].flip(0)
    for _, sigma, target in walk(rising):
        start = x
        x = move(start, evaluate(denoiser, start, sigma), sigma, target)
        for _ in range(iterations):
            # Solves start = move(x, D(x, target), target, sigma) for x.
            x = move(start, evaluate(denoiser, x, target), sigma, target)
    return x


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985; for GAN latents White 2016).

    Linear interpolation would pass through norms that N(0, I) practically never has.

    Args:
        start, end: [N, ...]; a latent's angle is that of all its numbers together.
        t: [T] in [0, 1], or [N, T]: of each path its own.

    Returns:
        [N, T, ...], ``start`` at t = 0 and ``end`` at t = 1.
    """
    shape = start.shape[1:]
    start, end = start.flatten(1), end.flatten(1)
    cosine = torch.cosine_similarity(start, end, dim=1).clamp(-1, 1)
    omega = cosine.acos()[:, None, None]
    t = t.expand(len(start), -1)[:, :, None]
    start, end = start[:, None], end[:, None]
    sine = omega.sin()
    arc = ((1 - t) * omega).sin() / sine * start + (t * omega).sin() / sine * end
    # Parallel latents have no arc: the straight line is the limit.
    return torch.where(sine.abs() < 1e-6, (1 - t) * start + t * end, arc).unflatten(2, shape)
