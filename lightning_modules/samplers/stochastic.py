"""Samplers that add noise on their way, which the caller gives: step i, from 0, makes draw number i + 1.

Nothing is drawn from a global generator, and the draw's number tells which it is: with ``counted_noise`` a picture is
the same in whatever batch it is made. Arguments, results and errors beside the noise are those of ``deterministic``;
levels must fall.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gesso.common.randomness import mix_key
from lightning_modules.core.noise import Rows, normals
from lightning_modules.samplers.deterministic import heun_step
from lightning_modules.samplers.schedules import VE, Path
from lightning_modules.samplers.stepping import Callback, Denoiser, Noise, evaluate, observe, walk


def counted_noise(seed: int, like: Tensor, index: Tensor | None = None) -> Noise:
    """Noise that is a function of the seed, the number of the draw and the number of the picture.

    Args:
        seed: of the pictures.
        like: a batch of the state's shape, [N, ...], on its device.
        index: numbers of the batch's pictures among all of them, [N]; None: 0 to N - 1.

    Returns:
        Draw number k as float32 of the shape of ``like``.

    Raises:
        ValueError: another number of numbers than of pictures.
    """
    numbers: list[int] = list(range(len(like))) if index is None else index.tolist()
    if len(numbers) != len(like):
        raise ValueError(f"the index has {len(numbers)} numbers for a batch of {len(like)} pictures")
    elements = math.prod(like.shape[1:])

    def noise(draw: int) -> Tensor:
        made = [normals([mix_key(seed, draw)], rows, elements, like.device) for rows in _rows(numbers)]
        return torch.cat(made).view(like.shape) if made else torch.empty_like(like, dtype=torch.float32)

    return noise


def _rows(numbers: list[int]) -> list[Rows]:
    """The numbers as one progression, if they are one: a rank's are every so many."""
    if not numbers:
        return []
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if numbers == [numbers[0] + place * step for place in range(len(numbers))]:
        return [Rows(len(numbers), numbers[0], step)]
    return [Rows(1, number) for number in numbers]


@torch.no_grad()
def edm_stochastic(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    churn: float = 40.0,
    churn_min: float = 0.05,
    churn_max: float = 50.0,
    noise_scale: float = 1.003,
    path: Path = VE,
    callback: Callback | None = None,
) -> Tensor:
    """EDM's algorithm 2 (Karras et al. 2022, arXiv:2206.00364): noise is added before each of Heun's steps.

    Args:
        churn: S_churn, how much, over all steps; 0: Heun's method.
        churn_min, churn_max: S_min and S_max, the noise levels between which noise is added, both included.
        noise_scale: S_noise, standard deviation of the noise. Defaults are the paper's for ImageNet-64 (table 5).
        path: of Heun's steps, as for ``deterministic.heun``.

    Raises:
        ValueError: churn below 0.
    """
    if not churn >= 0:
        raise ValueError(f"churn {churn}: choose 0 or more")
    x = x.to(torch.float64)
    steps = falling(sigmas)
    for index, sigma, target in steps:
        gamma = min(churn / len(steps), math.sqrt(2) - 1) if churn_min <= sigma <= churn_max else 0.0
        if gamma > 0:
            raised = sigma * (1 + gamma)
            x = x + math.sqrt(raised**2 - sigma**2) * noise_scale * draw(noise, index + 1)
            sigma = raised
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        x = heun_step(denoiser, x, denoised, sigma, target, path)
    return x


@torch.no_grad()
def ddpm(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise,
    eta: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling of DDPM (Ho et al. 2020, arXiv:2006.11239, algorithm 2), with the posterior's own variance.

    Args:
        eta: DDIM's (Song et al. 2021, arXiv:2010.02502, eq. 16), in [0, 1]. 1: DDPM; 0: DDIM.

    Raises:
        ValueError: eta outside its range.
    """
    check_eta(eta)
    x = x.to(torch.float64)
    for index, sigma, target in falling(sigmas):
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        x = ancestral_step(x, denoised, sigma, target, noise, index + 1, eta)
    return x


@torch.no_grad()
def consistency(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, noise: Noise, callback: Callback | None = None
) -> Tensor:
    """Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, algorithm 1).

    ``denoiser`` is a consistency function: its answer is the picture at the end of the path through x, and each step
    but the last adds noise of the next level to it.
    """
    x = x.to(torch.float64)
    for index, sigma, target in falling(sigmas):
        denoised = evaluate(denoiser, x, sigma)
        observe(callback, index, sigma, x, denoised)
        x = denoised + target * draw(noise, index + 1) if target > 0 else denoised
    return x


def ancestral_step(
    x: Tensor, denoised: Tensor, sigma: float, target: float, noise: Noise, number: int, eta: float = 1.0
) -> Tensor:
    """A draw of q(x_target | x_sigma, x0 = denoised), with draw ``number`` of the noise; nothing is drawn at 0.

    The posterior N(x0 + (t/s)^2 (x - x0), t^2 (s^2 - t^2) / s^2) is DDPM's with s = sigma, t = target and x scaled.
    """
    share = target / sigma
    added = eta * target * math.sqrt(1 - share**2)
    kept = math.sqrt(target**2 - added**2)
    x = denoised + (kept / sigma) * (x - denoised)
    return x + added * draw(noise, number) if added > 0 else x


def draw(noise: Noise, number: int) -> Tensor:
    """Draw ``number`` as float64."""
    return noise(number).to(torch.float64)


def falling(sigmas: Tensor) -> list[tuple[int, float, float]]:
    """Like ``stepping.walk``, for levels that must fall.

    Raises:
        ValueError: they rise.
    """
    steps = walk(sigmas)
    if steps[0][1] < steps[0][2]:
        raise ValueError("sigmas must fall: a sampler that adds noise cannot be run from pictures to noise")
    return steps


def check_eta(eta: float) -> None:
    """Refuses what is not in [0, 1].

    Raises:
        ValueError: so.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta {eta}: choose 0 (DDIM) to 1 (DDPM)")
