from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.samplers.deterministic import euler, heun
from lightning_modules.samplers.guidance import autoguidance, classifier_free
from lightning_modules.samplers.schedules import edm_sigmas
from lightning_modules.samplers.stepping import Denoiser
from tests.diffusions import counted, gaussian_denoiser, mixture_denoiser, standard_normal


def never(x: Tensor, sigma: Tensor) -> Tensor:
    raise AssertionError("this denoiser was not to be called")


@pytest.mark.parametrize("guide", [classifier_free, autoguidance])
def test_guidance_1_is_the_model_to_the_bit(guide: type) -> None:
    x, sigmas = 80 * standard_normal(8, 2), edm_sigmas(18)
    expected = heun(mixture_denoiser, x, sigmas)
    assert torch.equal(heun(guide(mixture_denoiser, never, 1.0), x, sigmas), expected)
    assert torch.equal(heun(guide(mixture_denoiser, never, 1), x, sigmas), expected)


def test_guidance_0_is_the_unconditional_model_to_the_bit() -> None:
    x, sigmas = 80 * standard_normal(8, 2), edm_sigmas(18)
    assert torch.equal(
        heun(classifier_free(never, mixture_denoiser, 0.0), x, sigmas), heun(mixture_denoiser, x, sigmas)
    )


def test_no_classes_and_no_guidance() -> None:
    assert classifier_free(mixture_denoiser, None, 1.0) is mixture_denoiser


@pytest.mark.parametrize("guide", [classifier_free, autoguidance])
@pytest.mark.parametrize("guidance", [0.5, 1.5, 4.0])
def test_against_the_guided_score(guide: type, guidance: float) -> None:
    """The score of p_u^(1 - w) p_c^w is (1 - w) times the one and w times the other, and D = x + sigma^2 score."""
    x = standard_normal(64, 2)
    sigma = torch.linspace(0.1, 5, 64, dtype=torch.float64)

    def score(mean: float, spread: float) -> Tensor:
        return -(x - mean) / (spread**2 + sigma[:, None] ** 2)

    expected = x + sigma[:, None] ** 2 * ((1 - guidance) * score(0.0, 1.0) + guidance * score(0.7, 0.4))
    guided = guide(gaussian_denoiser(0.4, 0.7), gaussian_denoiser(1.0), guidance)
    torch.testing.assert_close(guided(x, sigma), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("guide", [classifier_free, autoguidance])
def test_guidance_in_an_interval_only(guide: type) -> None:
    strong, weak = gaussian_denoiser(0.4, 0.7), gaussian_denoiser(1.0)
    calls: list[float] = []
    guided: Denoiser = guide(strong, counted(weak, calls), 3.0, sigma_low=0.3, sigma_high=2.0)
    sigmas = torch.tensor([8.0, 2.0, 1.0, 0.3, 0.1, 0.0], dtype=torch.float64)
    euler(guided, 8 * standard_normal(4, 2), sigmas)
    assert calls == [2.0, 1.0]  # the upper end is inside, the lower one is not
    # Also where one batch has several levels: outside, the answer is the strong model's to the bit.
    x, mixed = standard_normal(5, 2), sigmas[:5]
    everywhere: Denoiser = guide(strong, weak, 3.0)
    assert torch.equal(guided(x, mixed)[[0, 3, 4]], strong(x, mixed)[[0, 3, 4]])
    assert torch.equal(guided(x, mixed)[1:3], everywhere(x, mixed)[1:3])


def test_bad_input_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"^guidance 1.5 needs a model that was trained with classes[^\n]*$"):
        classifier_free(mixture_denoiser, None, 1.5)
    for guide in (classifier_free, autoguidance):
        with pytest.raises(ValueError, match=r"^guidance nan: choose[^\n]*$"):
            guide(mixture_denoiser, mixture_denoiser, math.nan)
        with pytest.raises(ValueError, match=r"^guidance between sigma 2 and 1: choose[^\n]*$"):
            guide(mixture_denoiser, mixture_denoiser, 2.0, sigma_low=2, sigma_high=1)
