"""Perceptual path lengths: closed forms of linear generators, the authors' percentiles, samples at paths' ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.core.abilities import CannotDo
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.metrics.evaluator import EvaluationOptions
from lightning_modules.metrics.path_length import EPSILON, PathLength, shrunken, trimmed_mean
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.samplers.editing import slerp
from tests.lightning_modules.gan.test_stylegan2 import small
from tests.lightning_modules.gan.test_stylegan3 import narrow

PATHS, SIDE = 12, 4
GENERATOR = torch.Generator().manual_seed(0)
STARTS, ENDS = (torch.randn(PATHS, 6, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
NETWORK = torch.randn(6, 3 * SIDE**2, generator=GENERATOR, dtype=torch.float64)
FEATURES = torch.randn(3 * SIDE**2, 5, generator=GENERATOR, dtype=torch.float64)


def images(latents: Tensor) -> Tensor:
    return (latents @ NETWORK).view(-1, 3, SIDE, SIDE)


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared distance of linear features."""
    return ((ours - theirs).double().flatten(1) @ FEATURES).square().sum(1)


def measured(metric: PathLength, size: int = 5) -> float:
    for index in torch.randperm(PATHS, generator=torch.Generator().manual_seed(1)).split(size):
        metric.update(index)
    return metric.compute()


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences of 1e-4 in float64: closed forms are met to more digits than float32 has."""
    monkeypatch.setattr("lightning_modules.metrics.path_length.shrunken", lambda pictures: pictures)


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_a_linear_generator_along_straight_lines(sampling: str) -> None:
    def walk(index: Tensor, times: Tensor) -> Tensor:
        return images(STARTS[index].lerp(ENDS[index], times[:, None]))

    found = measured(PathLength(walk, distance, sampling, num_samples=PATHS, seed=0))  # type: ignore[arg-type]
    # The path's speed is the same everywhere.
    lengths = ((ENDS - STARTS) @ NETWORK @ FEATURES).square().sum(1)
    assert found == pytest.approx(lengths.mean().item(), rel=1e-8)


def test_a_linear_generator_at_the_ends_of_arcs() -> None:
    def walk(index: Tensor, times: Tensor) -> Tensor:
        return images(slerp(STARTS[index], ENDS[index], times[:, None])[:, 0])

    found = measured(PathLength(walk, distance, "end", num_samples=PATHS, seed=0))
    cosine = torch.cosine_similarity(STARTS, ENDS)[:, None]
    speed = cosine.acos() * (ENDS - cosine * STARTS) / (1 - cosine**2).sqrt()
    lengths = (speed @ NETWORK @ FEATURES).square().sum(1)
    # The arc bends on the way of epsilon.
    assert found == pytest.approx(lengths.mean().item(), rel=10 * EPSILON)


def test_a_constant_generator_has_none() -> None:
    def walk(index: Tensor, times: Tensor) -> Tensor:
        return torch.ones(len(index), 3, SIDE, SIDE)

    assert measured(PathLength(walk, distance, "full", num_samples=PATHS, seed=0)) == 0


def test_times_do_not_depend_on_batches_and_fill_the_path() -> None:
    seen: dict[int, float] = {}

    def walk(index: Tensor, times: Tensor) -> Tensor:
        for number, time in zip(index.tolist(), times.tolist(), strict=True):
            seen.setdefault(number, time)
            assert time - seen[number] == pytest.approx(EPSILON) or time == seen[number]
        return images(STARTS[index].pow(2) * times[:, None] ** 2)

    def metric() -> PathLength:
        return PathLength(walk, distance, "full", num_samples=PATHS, seed=3)

    assert measured(metric(), size=12) == pytest.approx(measured(metric(), size=5), rel=1e-12)
    assert min(seen.values()) < 0.25 < 0.75 < max(seen.values()) < 1
    twice = metric()
    for _ in range(2):
        twice.update(torch.arange(3))
    with pytest.raises(ValueError, match="each path is followed once"):
        twice.compute()


def test_percentiles_are_the_authors() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=437)
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    expected = values[(values >= low) & (values <= high)].mean()
    assert trimmed_mean(torch.from_numpy(values)).item() == pytest.approx(expected, rel=1e-12)


def test_large_and_grey_images_as_lpips_gets_them() -> None:
    grey = torch.arange(4.0).view(1, 1, 2, 2).repeat_interleave(256, 2).repeat_interleave(256, 3)
    assert shrunken(grey).shape == (1, 3, 256, 256)
    assert shrunken(grey)[0, 1, 0, 0] == 0
    assert shrunken(grey)[0, 2, -1, -1] == 3
    assert shrunken(torch.zeros(2, 3, 500, 500)).shape == (2, 3, 500, 500)


@pytest.mark.parametrize("space", ["z", "w"])
@pytest.mark.parametrize("make", [small, narrow], ids=["stylegan2", "stylegan3"])
@torch.no_grad()
def test_paths_of_a_stylegan_lead_from_sample_to_sample(make: object, space: str) -> None:
    module = make().eval()  # type: ignore[operator]
    index = torch.tensor([0, 3])
    labels = index % module.num_classes if module.num_classes else None
    for time, samples in ((0.0, 2 * index), (1.0, 2 * index + 1)):
        times = torch.full((2,), time, dtype=torch.float64)
        found = module.on_path(index, times, seed=4, space=space)
        # Strengths of noise begin at 0.
        torch.testing.assert_close(
            found.clamp(-1, 1), module.generate(samples, seed=4, labels=labels), atol=1e-5, rtol=1e-4
        )


@torch.no_grad()
def test_paths_of_w_are_straight_and_noise_is_the_paths_own() -> None:
    module = small().eval()
    index = torch.tensor([0, 1])
    ws = [module.generator.mapping(*of_one) for of_one in module.path_ends(index, seed=0)]
    middle = module.w_space().images(module.w_space().layers((ws[0] + ws[1]) / 2))
    half = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(module.on_path(index, half, seed=0, space="w"), middle, atol=1e-5, rtol=1e-4)
    for name, value in module.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.5)
    noisy = module.on_path(index, half, seed=0, space="w")
    assert (noisy - middle).abs().max() > 1e-3
    torch.testing.assert_close(module.on_path(index[1:], half[1:], seed=0, space="w"), noisy[1:], atol=1e-5, rtol=1e-4)


def test_what_a_family_has_no_space_for_is_refused() -> None:
    module = DCGAN(
        resolution=32, latent_dim=4, generator=GeneratorOptions(width=4), discriminator=DiscriminatorOptions(width=4)
    )
    with pytest.raises(ValueError, match="ppl, ppl_wfull cannot be measured of a DCGAN; choose from fid, .* ppl_zend"):
        module.evaluator(EvaluationOptions(metrics=("ppl", "ppl_wfull")))
    with pytest.raises(CannotDo, match="W"):
        module.on_path(torch.arange(2), torch.zeros(2), seed=0, space="w")
    evaluator = module.evaluator(EvaluationOptions(metrics=("ppl_zend",)))
    assert evaluator is not None
    assert dict(evaluator.names) == {"ppl_zend/vgg16": "min"}
    assert list(evaluator.weights) == ["vgg16_lpips"]
    assert not evaluator.references
    assert math.isfinite(module.on_path(torch.arange(2), torch.zeros(2).double(), seed=0, space="z").sum().item())
