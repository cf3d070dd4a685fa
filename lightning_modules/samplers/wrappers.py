"""Networks of any parametrisation as denoisers D(x, sigma) of x = x0 + sigma e.

A network is called with x and its time in ``dtype``; conditions are bound before, by a closure. The few multiplications
around it are in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from gesso.common.arguments import one_of
from lightning_modules.samplers.preconditioning import Preconditioning
from lightning_modules.samplers.schedules import FLOW, VE, VP, beside, convert, sigma_of_alpha_bar, time_of_sigma
from lightning_modules.samplers.stepping import Denoiser

#: What a network predicts out of its input [N, ...] and times [N].
Network = Callable[[Tensor, Tensor], Tensor]

Prediction = Literal["epsilon", "v", "data"]


def edm_denoiser(network: Network, preconditioning: Preconditioning, *, dtype: torch.dtype = torch.float32) -> Denoiser:
    """EDM's denoiser D = c_skip x + c_out F(c_in x, c_noise) (Karras et al. 2022, eq. 7)."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        c = preconditioning
        output = network((beside(c.c_in(sigma), x) * x).to(dtype), c.c_noise(sigma).to(dtype))
        return beside(c.c_skip(sigma), x) * x + beside(c.c_out(sigma), x) * output.to(torch.float64)

    return denoise


def discrete_denoiser(
    network: Network,
    alphas_bar: Tensor,
    prediction: Prediction = "epsilon",
    *,
    rounded: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """A network of DDPM's kind, trained at discrete times 0 to T - 1, least noise first.

    Args:
        network: takes z = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) e and the time.
        alphas_bar: float64 [T], falling.
        prediction: ``epsilon``: e (Ho et al. 2020); ``v``: sqrt(alpha_bar) e - sqrt(1 - alpha_bar) x0 (Salimans and Ho
            2022, arXiv:2202.00512); ``data``: x0.
        rounded: times are the nearest integers, int64, instead of numbers between them, of ``dtype``.

    Raises:
        ValueError: another prediction.
    """
    one_of(prediction, "prediction", get_args(Prediction))
    table = sigma_of_alpha_bar(alphas_bar.to(torch.float64)).log()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        times = discrete_times(sigma, table.to(sigma.device))
        z = convert(x, sigma, VE, VP)
        output = network(z.to(dtype), times.round().long() if rounded else times.to(dtype)).to(torch.float64)
        if prediction == "data":
            return output
        level = beside(sigma, x)
        if prediction == "epsilon":
            return x - level * output
        scale = VP.scale(level)
        return scale * z - scale * level * output

    return denoise


def discrete_times(sigma: Tensor, log_sigmas: Tensor) -> Tensor:
    """Where in the rising table ``log_sigmas`` [T] each sigma [N] lies, float64 in [0, T - 1], linear in ln sigma."""
    wanted = sigma.to(torch.float64).log().clamp(log_sigmas[0], log_sigmas[-1])
    # What torch.searchsorted finds, in operations that ONNX has.
    above = (log_sigmas < wanted[:, None]).sum(1).clamp(1, len(log_sigmas) - 1)
    low, high = log_sigmas[above - 1], log_sigmas[above]
    return above - 1 + (wanted - low) / (high - low)


def flow_denoiser(
    network: Network, *, data_at_one: bool = False, time_scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> Denoiser:
    """A velocity network of a flow: v(z, t) = e - x0 at z = (1 - t) x0 + t e.

    Args:
        data_at_one: the network's time and velocity run the other way: the data at t = 1, v = x0 - e.
        time_scale: what the network's times are multiplied with, such as 1000.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        times = time_of_sigma(sigma)
        z = convert(x, sigma, VE, FLOW)
        shown = 1 - times if data_at_one else times
        output = network(z.to(dtype), (time_scale * shown).to(dtype)).to(torch.float64)
        step = beside(times, x)
        return z + step * output if data_at_one else z - step * output

    return denoise
