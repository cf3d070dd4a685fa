"""The projection follows its authors' code to rounding; its parts against formulas in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from launch.inference.projecting import for_network, perceptual_distance
from lightning_modules.latents.projection import (
    ProjectionOptions,
    correlations,
    moments_of_w,
    normalize_,
    project,
)
from lightning_modules.networks.lpips import LPIPS
from tests.pictures import photographs
from tests.w_spaces import ToySpace, formula, tiny, tiny3

SPACE = ToySpace()
TARGET = SPACE.images(SPACE.layers(formula(1, 6, phase=5.0)))
#: What StyleGAN2-ADA's projector.py finds: its features replaced by a tenth of the pixels, 60 steps, 50 samples of w,
#: noise_weight 1,000, torch.manual_seed(7).
AUTHORS = (-1.1690149307, 0.8014619946, 1.2068202495, -0.8969757557, -1.2522717714, 0.9581612945)


def pixels(images: Tensor) -> Tensor:
    return ((images - TARGET) * 0.1).square().sum((1, 2, 3))


def test_it_is_the_authors() -> None:
    found = project(SPACE, pixels, 1, ProjectionOptions(steps=60, samples=50, noise_weight=1e3), seed=7)
    assert found.shape == (1, 4, 6)
    torch.testing.assert_close(found[0], torch.tensor(AUTHORS).expand(4, 6), atol=2e-6, rtol=0)
    mean = moments_of_w(SPACE, 50)[0]
    assert pixels(SPACE.images(found)) < 0.01 * pixels(SPACE.images(SPACE.layers(mean[None])))


def test_w_plus_comes_closer_and_each_target_is_on_its_own() -> None:
    options = ProjectionOptions(steps=60, samples=50, noise=0.0, noise_weight=1e3)
    # Not within reach of a single w.
    ws = formula(1, 4, 6, phase=2.0)
    targets = torch.cat([TARGET, SPACE.images(ws)])

    def distance(images: Tensor) -> Tensor:
        return ((images - targets) * 0.1).square().sum((1, 2, 3))

    one, plus = (project(SPACE, distance, 2, replace(options, plus=plus)) for plus in (False, True))
    assert torch.equal(one[:, 0], one[:, 1])
    assert not torch.equal(plus[:, 0], plus[:, 1])
    assert distance(SPACE.images(plus))[1] < 0.2 * distance(SPACE.images(one))[1]
    # Beside others it is found as it is alone, but for the noise maps at the beginning.
    alone = project(SPACE, pixels, 1, options)
    torch.testing.assert_close(one[:1], alone, atol=0.02, rtol=0)


def test_the_schedule() -> None:
    options = ProjectionOptions()
    rates = [options.learning_rate(done) for done in (0, 0.025, 0.05, 0.5, 0.75, 0.875, 1)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.1, 0.05, 0])
    assert [options.noise_of_w(done) for done in (0, 0.375, 0.75, 1)] == pytest.approx([0.05, 0.0125, 0, 0])
    w = np.stack([formula(6, phase=0.37 * number).numpy() for number in range(50)])
    mean, spread = moments_of_w(SPACE, 50)
    np.testing.assert_allclose(mean, w.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread, np.sqrt(w.var(0).sum()), rtol=1e-6)


def test_noise_maps_are_regularised_at_all_scales() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 32, 32)))
    expected = 0.0
    for single in maps.numpy():
        while True:
            for axis in (0, 1):
                expected += np.mean(single * np.roll(single, 1, axis)) ** 2
            if len(single) <= 8:
                break
            single = single.reshape(len(single) // 2, 2, len(single) // 2, 2).mean((1, 3))
    assert float(correlations(maps)) == pytest.approx(expected, rel=1e-12)
    # A picture in the noise costs far more than noise does.
    assert float(correlations(torch.ones(2, 32, 32))) == pytest.approx(2 * 3 * 2)
    normalize_([maps.mul_(3).add_(1)])
    np.testing.assert_allclose(maps.mean((1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(maps.square().mean((1, 2)), 1, rtol=1e-12)


def test_a_generator_without_noise_is_projected_into() -> None:
    space = tiny3().w_space()
    target = space.images(space.layers(space.sampled(torch.tensor([3]), seed=1)))

    def distance(images: Tensor) -> Tensor:
        return (images - target).square().sum((1, 2, 3))

    start = distance(space.images(space.layers(moments_of_w(space, 200)[0][None])))
    assert distance(space.images(project(space, distance, 1, ProjectionOptions(steps=30, samples=200)))) < 0.3 * start


@pytest.mark.slow
@pytest.mark.network
def test_a_generators_own_picture_comes_nearer() -> None:
    space = tiny().w_space()
    with torch.no_grad():
        target = space.images(space.layers(space.sampled(torch.tensor([3]), seed=1))).clamp(-1, 1)
        lpips = LPIPS(fetch("vgg16_lpips", progress=False))
        distance = perceptual_distance(lpips, target)
        before = float(distance(space.images(space.layers(moments_of_w(space, 200)[0][None]))))
    seen: list[int] = []
    found = project(
        space,
        distance,
        1,
        ProjectionOptions(steps=20, samples=200),
        progress=lambda done, distances: seen.append(done),
    )
    after = float(distance(space.images(found)))
    assert after < 0.7 * before
    assert seen == [10, 20]


@pytest.mark.network
def test_targets_that_stay_give_the_same_lpips() -> None:
    lpips = LPIPS(fetch("vgg16_lpips", progress=False))
    images = photographs(64)
    assert torch.equal(lpips.to_targets(images)(images.flip(3)), lpips(images.flip(3), images))


def test_pictures_are_compared_at_sides_that_suit_the_network() -> None:
    for side, expected in ((300, 256), (256, 256), (64, 64), (40, 80), (16, 64)):
        shown = for_network(torch.rand(2, 1, side, side))
        assert shown.shape == (2, 3, expected, expected)
    # Averaged down, and each pixel's share kept.
    images = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(for_network(images), torch.nn.functional.avg_pool2d(images, 2))
