"""The samplers by name, as the command line and options have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gesso.common.arguments import one_of
from lightning_modules.samplers import deterministic, stochastic
from lightning_modules.samplers.schedules import VE, Path
from lightning_modules.samplers.stepping import Callback, Denoiser, Noise, check_sigmas, walk


@dataclass(frozen=True)
class Sampler:
    """One way from noise to pictures.

    Args:
        function: of ``deterministic`` or ``stochastic``.
        each, last: evaluations of the denoiser in one step, and in a step that ends at sigma 0.
        stochastic: it takes ``noise``.
        trapezoid: it takes ``path``: its result depends on the parametrisation that it steps in.
    """

    function: Callable[..., Tensor]
    each: int = 1
    last: int = 1
    stochastic: bool = False
    trapezoid: bool = False

    def evaluations(self, sigmas: Tensor) -> int:
        """How many times the denoiser is called for these levels: part of the name of every figure."""
        return sum(self.last if target == 0 else self.each for _, _, target in walk(sigmas))

    def __call__(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        sigmas: Tensor,
        *,
        noise: Noise | None = None,
        path: Path = VE,
        callback: Callback | None = None,
    ) -> Tensor:
        """Makes pictures.

        Args:
            latents: standard normal, [N, ...]; they are multiplied with ``sigmas[0]`` here.
            sigmas: [steps + 1], falling.
            noise: for a stochastic sampler; others ignore it.
            path: the model's: ``FLOW`` for a flow. Samplers that no parametrisation changes ignore it.

        Returns:
            float64 [N, ...]: x at ``sigmas[-1]``.

        Raises:
            ValueError: no noise for a stochastic sampler; bad levels.
        """
        levels = check_sigmas(sigmas)
        options: dict[str, object] = {"callback": callback}
        if self.stochastic:
            if noise is None:
                raise ValueError("this sampler adds noise at every step: pass noise, such as stochastic.counted_noise")
            options["noise"] = noise
        if self.trapezoid:
            options["path"] = path
        return self.function(denoiser, latents.to(torch.float64) * levels[0], sigmas, **options)


SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler(deterministic.euler),
    "ddim": Sampler(deterministic.euler),
    "heun": Sampler(deterministic.heun, each=2, trapezoid=True),
    "dpmpp-2m": Sampler(deterministic.dpmpp_2m),
    "dpmpp-2s": Sampler(deterministic.dpmpp_2s, each=2),
    "edm-stochastic": Sampler(stochastic.edm_stochastic, each=2, stochastic=True, trapezoid=True),
    "ddpm": Sampler(stochastic.ddpm, stochastic=True),
    "consistency": Sampler(stochastic.consistency, stochastic=True),
}


def find_sampler(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
        ValueError: there is none.
    """
    return SAMPLERS[one_of(name, "sampler", tuple(SAMPLERS))]
