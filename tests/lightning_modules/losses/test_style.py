"""Style and content losses against plain loops, closed forms and published code; and in half precision."""

from __future__ import annotations

import pytest
import torch

from datamodules.assets.fetching import fetch
from lightning_modules.losses.perceptual import content_loss, total_variation
from lightning_modules.losses.style import (
    EPSILON,
    gram,
    gram_loss,
    mean_std,
    random_directions,
    relative_gram_loss,
    relative_sliced_wasserstein_loss,
    sliced_wasserstein_loss,
    statistics_loss,
    weighted_gram,
)
from lightning_modules.networks.instance_norm import adain
from lightning_modules.networks.vgg import VGG19
from tests.pictures import paintings


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0)) + 1


def test_gram_is_the_mean_of_products(features: torch.Tensor) -> None:
    found = gram(features)
    for n in range(2):
        for i in range(5):
            for j in range(5):
                expected = sum(float(features[n, i, y, x] * features[n, j, y, x]) for y in range(4) for x in range(6))
                assert found[n, i, j].item() == pytest.approx(expected / 24, rel=1e-5)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_the_gram_matrix_has_the_gradient_of_its_formula(
    features: torch.Tensor, memory: torch.memory_format, everywhere: bool, dtype: torch.dtype, within: float
) -> None:
    place = torch.tensor(1 / 24) if everywhere else torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    # Not symmetric, which the gradient of a loss by a symmetric matrix need not be.
    slope = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(2))
    ours = features.to(dtype, memory_format=memory, copy=True).requires_grad_()
    found = weighted_gram(ours, place)
    exact = ours.detach().double().requires_grad_()
    expected = torch.einsum("nihw,njhw,hw->nij", exact, exact, place.double().expand(4, 6))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    (found * slope).sum().backward()
    (expected * slope).sum().backward()
    assert ours.grad is not None
    assert exact.grad is not None
    assert ours.grad.is_contiguous(memory_format=memory)
    assert ((ours.grad - exact.grad).norm() / exact.grad.norm()).item() < within


def test_gram_loss_is_four_times_the_papers(features: torch.Tensor) -> None:
    # Eq. 4 of Gatys et al. with N = 5 channels and M = 24 places.
    target = features.flip(0)
    ours, theirs = (f.flatten(2) @ f.flatten(2).transpose(1, 2) for f in (features, target))
    paper = ((ours - theirs) ** 2).sum((1, 2)) / (4 * 5**2 * 24**2)
    assert gram_loss(features, gram(target)).item() == pytest.approx(4 * paper.mean().item(), rel=1e-5)


def test_statistics_are_those_of_the_published_code(features: torch.Tensor) -> None:
    rows = features.view(2, 5, -1)
    std = (rows.var(dim=2) + EPSILON).sqrt().view(2, 5, 1, 1)
    mean = rows.mean(dim=2).view(2, 5, 1, 1)
    style = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(1)) * 3
    style_rows = style.view(2, 5, -1)
    style_std = (style_rows.var(dim=2) + EPSILON).sqrt().view(2, 5, 1, 1)
    style_mean = style_rows.mean(dim=2).view(2, 5, 1, 1)
    torch.testing.assert_close(mean_std(features), (mean, std))
    torch.testing.assert_close(adain(features, *mean_std(style)), (features - mean) / std * style_std + style_mean)
    loss = torch.nn.MSELoss()
    expected = loss(mean, style_mean) + loss(std, style_std)
    torch.testing.assert_close(statistics_loss(features, *mean_std(style)), expected)


def test_a_single_place_has_no_variance() -> None:
    mean, std = mean_std(torch.full((1, 2, 1, 1), 3.0))
    assert mean.flatten().tolist() == [3, 3]
    torch.testing.assert_close(std, torch.full((1, 2, 1, 1), EPSILON**0.5))


def test_sliced_wasserstein_is_zero_for_the_same_vectors_elsewhere(features: torch.Tensor) -> None:
    directions = random_directions(torch.randn(16, 5, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(16))
    shuffled = features.flatten(2)[:, :, torch.randperm(24)].view_as(features)
    assert sliced_wasserstein_loss(features, shuffled, directions).item() < 1e-12
    # A shift by d moves each projection by d . direction, and all quantiles with it.
    shift = torch.tensor([1.0, -2, 0, 0.5, 3])
    expected = (directions @ shift).square().mean()
    moved = sliced_wasserstein_loss(features + shift[:, None, None], features, directions)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)


def test_glaring_spots_stand_for_a_texture_in_the_gram_matrix_alone() -> None:
    texture = torch.ones(1, 1, 20, 20)
    spots = torch.zeros(1, 1, 20, 20)
    spots[..., :2, :2] = 10.0  # a hundredth of the places, with all of the energy
    directions = torch.ones(1, 1)
    assert relative_gram_loss(spots, gram(texture)).item() < 1e-9
    # 99 of 100 places are off by 1, one by 9.
    assert relative_sliced_wasserstein_loss(spots, texture, directions).item() == pytest.approx(0.99 + 0.01 * 81)
    nothing = torch.zeros_like(texture)
    assert relative_sliced_wasserstein_loss(nothing, 3 * texture, directions).item() == pytest.approx(1)


def test_sliced_wasserstein_compares_pictures_of_different_sizes() -> None:
    ramp = torch.linspace(0, 1, 101).view(1, 1, 1, 101)
    coarse = torch.linspace(0, 1, 11).view(1, 1, 1, 11)
    assert sliced_wasserstein_loss(ramp, coarse, torch.ones(1, 1)).item() < 1e-10


def test_total_variation() -> None:
    steps = torch.arange(6.0).view(1, 1, 2, 3)  # neighbours differ by 1 across and by 3 down
    assert total_variation(steps).item() == pytest.approx(1 + 3)
    assert total_variation(torch.ones(1, 3, 1, 1)).item() == 0


@pytest.mark.network
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_same_gram_matrices(dtype: torch.dtype) -> None:
    encoder = VGG19(fetch("vgg19_normalized", progress=False))
    features = encoder(paintings(128), ("relu3_1",))["relu3_1"]
    whole = gram(features)
    with torch.autocast("cpu", dtype):
        half = gram(features.to(dtype))
    assert half.dtype == torch.float32
    assert ((half - whole).norm() / whole.norm()).item() < 1e-2


def test_the_gram_matrix_of_a_large_picture_does_not_overflow_in_fp16() -> None:
    # relu1_1 of a picture of 1024 x 1024: a million places, products of about 2.
    features = torch.full((1, 2, 1024, 1024), 1.5, dtype=torch.float16)
    naive = features.flatten(2) @ features.flatten(2).transpose(1, 2)
    assert torch.isinf(naive).all()
    with torch.autocast("cpu", torch.float16):
        torch.testing.assert_close(gram(features), torch.full((1, 2, 2), 2.25))


def test_content_loss_is_in_fp32() -> None:
    far = torch.full((1, 4, 2, 2), 300.0, dtype=torch.float16)  # its square is beyond fp16
    assert content_loss(far, torch.zeros_like(far)).item() == 90_000
