from __future__ import annotations

import pytest
import torch

from lightning_modules.samplers.schedules import FLOW, edm_sigmas, flow_sigmas
from lightning_modules.samplers.stochastic import counted_noise
from lightning_modules.samplers.table import SAMPLERS, find_sampler
from tests.diffusions import counted, gaussian_denoiser, mixture_denoiser, standard_normal


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("ended", [True, False])
def test_every_sampler_calls_as_often_as_it_says(name: str, ended: bool) -> None:
    latents, levels = standard_normal(4, 2), []
    sigmas = edm_sigmas(18) if ended else edm_sigmas(18)[:-1]
    sampler = find_sampler(name)
    seen: list[int] = []
    x = sampler(
        counted(mixture_denoiser, levels),
        latents,
        sigmas,
        noise=counted_noise(1, latents),
        callback=lambda step: seen.append(step.index),
    )
    assert len(levels) == sampler.evaluations(sigmas)
    assert seen == list(range(len(sigmas) - 1))
    assert x.isfinite().all()


# Of an exact denoiser, consistency sampling is no flow.
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "consistency"])
def test_every_sampler_crosses_a_flow(name: str) -> None:
    """From all but infinite sigma to data of standard deviation 0.5."""
    latents, sigmas = standard_normal(4000, 2), flow_sigmas(100)
    x = find_sampler(name)(gaussian_denoiser(0.5), latents, sigmas, noise=counted_noise(1, latents), path=FLOW)
    assert x.std().item() == pytest.approx(0.5, rel=0.05)


def test_numbers_of_evaluations() -> None:
    evaluations = {name: sampler.evaluations(edm_sigmas(18)) for name, sampler in SAMPLERS.items()}
    assert evaluations == {
        "euler": 18,
        "ddim": 18,
        "heun": 35,
        "dpmpp-2m": 18,
        "dpmpp-2s": 35,
        "edm-stochastic": 35,
        "ddpm": 18,
        "consistency": 18,
    }


def test_bad_input_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"^sampler is 'eular'; it must be one of euler, ddim, heun[^\n]*$"):
        find_sampler("eular")
    for name in ("ddpm", "edm-stochastic"):
        with pytest.raises(ValueError, match=r"^this sampler adds noise at every step: pass noise[^\n]*$"):
            find_sampler(name)(mixture_denoiser, standard_normal(2, 2), edm_sigmas(4))
    with pytest.raises(ValueError, match=r"^sigmas of shape \[0\]: a sampler needs 1 step or more[^\n]*$"):
        find_sampler("heun")(mixture_denoiser, standard_normal(2, 2), torch.empty(0))
