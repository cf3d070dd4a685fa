"""ADA's transformations against the authors' at fixed percentiles; derivatives, probabilities, and how p follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.schedules import Schedule
from lightning_modules.losses.penalties import r1_penalty
from lightning_modules.networks.augment.adaptive import AdaptiveAugmentation, AugmentOptions
from lightning_modules.networks.augment.columns import NORMALS, UNIFORMS, Columns
from lightning_modules.networks.augment.resampling import SYM6, grid_sample
from lightning_modules.networks.augment.transforms import filter_bank
from tests.lightning_modules.networks.augment.percentiles import (
    GATES,
    PERCENTILES,
    SINGLE,
    AtPercentile,
    field,
    pictures,
    sparse,
)
from tests.lightning_modules.networks.stylegan2.mapped import figures, formula


class Drawn:
    """Random numbers as a family draws them."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def rand(self, count: int, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=self.generator)

    def randn(self, count: int, *shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=self.generator)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return figures("augment")


def augmentation(transforms: Any, **options: Any) -> AdaptiveAugmentation:
    return AdaptiveAugmentation(AugmentOptions(transforms, **options))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("name", SINGLE)
def test_each_transformation_is_the_authors(name: str, percentile: float, expected: dict[str, Tensor]) -> None:
    group, gates = SINGLE[name]
    for channels in (3, 1):
        if (key := f"{name}-{channels}-{percentile}") in expected:
            columns = AtPercentile(percentile, gates, half_normal=name == "noise")
            noise = field() if name == "noise" else None
            found = augmentation(group).transformed(pictures(channels), columns, noise)
            torch.testing.assert_close(sparse(found), expected[key], rtol=0, atol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("percentile", PERCENTILES)
@pytest.mark.parametrize("group", GATES)
@pytest.mark.parametrize("channels", [3, 1])
def test_all_together_are_the_authors(
    group: str, percentile: float, channels: int, expected: dict[str, Tensor]
) -> None:
    gates = tuple(gate for gate in GATES[group] if channels == 3 or group == "bg" or gate - GATES[group][-5] < 3)
    images = pictures(channels).requires_grad_()
    found = augmentation(group).transformed(images, AtPercentile(percentile, gates))
    key = f"{group}-{channels}-{percentile}"
    torch.testing.assert_close(sparse(found), expected[key], rtol=0, atol=1e-10)
    (found * formula(tuple(found.shape), 8)).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(sparse(images.grad), expected[f"{key}-gradient"], rtol=0, atol=1e-10)


def test_the_wavelet_filter_is_orthogonal_with_six_vanishing_moments() -> None:
    taps = np.array(SYM6)
    correlation = np.correlate(taps, taps, "full")
    np.testing.assert_allclose(correlation[11::2], [1, 0, 0, 0, 0, 0], atol=1e-10)
    alternating = taps * (-1.0) ** np.arange(12)
    for moment in range(6):
        assert abs((alternating * np.arange(12.0) ** moment).sum()) < 1e-5 * 12**moment


def test_the_bands_sum_to_the_identity() -> None:
    bank = filter_bank()
    assert bank.shape == (4, 43)
    identity = torch.zeros(43)
    identity[21] = 1
    torch.testing.assert_close(bank.sum(0), identity, atol=1e-6, rtol=0)
    # The lowest one alone lets a constant through.
    torch.testing.assert_close(bank.sum(1), torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_sampling_differentiates_twice_as_torchs_own() -> None:
    torch.manual_seed(0)
    grid = torch.rand(1, 3, 2, 2, dtype=torch.float64) * 2.4 - 1.2
    images = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    found = grid_sample(images, grid)
    theirs = F.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(found, theirs)
    for power in (found.square().sum(), theirs.square().sum()):
        assert power.requires_grad
    ours, their = (torch.autograd.grad(y.square().sum(), images, create_graph=True)[0] for y in (found, theirs))
    torch.testing.assert_close(ours, their)
    assert torch.autograd.gradgradcheck(lambda x: grid_sample(x, grid).square(), (images,))


def test_r1_runs_through_all_transformations() -> None:
    torch.manual_seed(0)
    pipeline, noise = augmentation("bgcfnc", initial_p=1.0), Drawn()
    weight = torch.randn(3, 24, 24, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = r1_penalty(lambda x: (pipeline(x, noise) * weight).sum((1, 2, 3)).square(), torch.randn(4, 3, 24, 24))
    penalty.backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.any()


def test_all_columns_are_used() -> None:
    for transforms in ("bgcfnc", "cutout", "noise", "bgcfn"):
        for channels in (1, 3):
            uniforms, normals = torch.rand(2, UNIFORMS), torch.randn(2, NORMALS)
            columns = Columns(uniforms, normals, torch.tensor(0.5))
            images = pictures(channels)
            augmentation(transforms).transformed(images, columns, images if "n" in transforms else None)
            left = len(list(columns._uniforms)), len(list(columns._normals))
            assert left == ((0, 0) if transforms in ("bgcfnc", "cutout") else (3, 0))


def test_nothing_happens_at_p_0_and_everything_at_p_1() -> None:
    images, noise = pictures(3).expand(-1, -1, -1, -1).repeat(32, 1, 1, 1), Drawn()
    assert torch.equal(augmentation("color")(images, noise), images)
    changed = augmentation("color", initial_p=1.0)(images, noise) != images
    assert changed.flatten(1).any(1).all()
    # At p each transformation leaves 1 - p of the images alone.
    mirrored = augmentation("cutout", initial_p=0.25)(images, noise) != images
    assert mirrored.flatten(1).any(1).float().mean().item() == pytest.approx(0.25, abs=0.12)


def test_p_follows_the_signs_of_the_logits() -> None:
    pipeline = augmentation("bgc", target=0.6, interval=4, kimg=0.1)
    shares = [0.9, 0.7, 0.5, 0.9, 0.9, 0.1, 0.1, 0.1, 1.0, 1.0, 0.6, 0.6]
    seen = []
    for step, share in enumerate(shares):
        positive = round(5 + 5 * share)
        pipeline.watch(torch.tensor([1.0] * positive + [-1.0] * (10 - positive)))
        pipeline.end_step(step)
        seen.append(round(pipeline.p.item(), 6))
    # Up by the 40 images of four steps over 100; down again, but not below 0; up.
    assert seen == [0.0] * 3 + [0.4] * 4 + [0.0] * 4 + [0.4]
    pipeline.load_state_dict({**pipeline.state_dict(), "strength": torch.tensor(7)})
    assert pipeline.p.item() == pytest.approx(0.07)


def test_p_stays_at_its_target_and_without_one() -> None:
    pipeline = augmentation("bgc", target=0.5, interval=1, initial_p=0.25)
    pipeline.watch(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    pipeline.end_step(0)
    assert pipeline.p.item() == 0.25
    fixed = augmentation("bgc", target=None, interval=1, initial_p=0.25)
    fixed.watch(torch.ones(4))
    fixed.end_step(0)
    assert fixed.p.item() == 0.25


def test_p_may_follow_a_schedule_instead() -> None:
    pipeline = augmentation("bgc_cutout", schedule=Schedule(0.0, 0.55, over_kimg=20_000.0), interval=1)
    assert pipeline.groups == {"blit", "geom", "color", "cutout"}
    for kimg, p in ((0, 0.0), (5_000, 0.55 * (1 - 0.5**0.5) / 2), (10_000, 0.275), (20_000, 0.55), (90_000, 0.55)):
        pipeline.begin_step(kimg * 1000, total_kimg=None)
        assert pipeline.p.item() == pytest.approx(p, abs=1e-6)
        # What the discriminator thinks of real images changes nothing.
        pipeline.watch(torch.ones(8))
        pipeline.end_step(0)
        assert pipeline.p.item() == pytest.approx(p, abs=1e-6)
    constant = augmentation("blit", schedule=0.25)
    constant.begin_step(0, total_kimg=None)
    assert constant.p.item() == 0.25


def test_colours_may_change_less_often_than_the_rest() -> None:
    images = torch.full((4000, 1, 2, 2), 0.5)
    shares = []
    for share in (1.0, 0.5, 0.0):
        pipeline = augmentation("color", initial_p=0.4, color_share=share)
        found = pipeline(images, Drawn())
        shares.append((found[:, 0, 0, 0] != 0.5).float().mean().item())
    # Of brightness, contrast and the flip of grey levels, which changes half of what it is applied to.
    expected = [1 - (1 - p) ** 2 * (1 - p / 2) for p in (0.4, 0.2, 0.0)]
    assert shares == pytest.approx(expected, abs=0.03)
    # Others keep p.
    both = augmentation("bgc_cutout", initial_p=1.0, color_share=0.0)
    columns = Columns.drawn(Drawn(), 8, both.p)
    both.transformed(torch.rand(8, 3, 8, 8), columns)
    assert columns.p == 1


def test_p_keeps_whole_numbers_when_weights_have_16_bits() -> None:
    pipeline = augmentation("bgc", initial_p=0.7).bfloat16()
    pipeline.watch(torch.tensor([torch.nan, 1.0, 1.0, 1.0]))
    pipeline.end_step(3)
    assert pipeline.strength.item() == 350_000 + 4
