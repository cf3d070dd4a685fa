from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.metrics.prdc import PRDC, prdc, precision_recall


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> PRDC:
    """The definitions, sample by sample."""

    def radius(x: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(x[i] - x[j])) for j in range(len(x)) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, i) for i in range(len(fake))]
    inside_real = [[np.linalg.norm(f - r) < radius for r, radius in zip(real, real_radii, strict=True)] for f in fake]
    inside_fake = [[np.linalg.norm(f - r) < radius for f, radius in zip(fake, fake_radii, strict=True)] for r in real]
    return PRDC(
        precision=float(np.mean([any(row) for row in inside_real])),
        recall=float(np.mean([any(row) for row in inside_fake])),
        density=float(np.mean([sum(row) / k for row in inside_real])),
        coverage=float(np.mean([any(column) for column in zip(*inside_real, strict=True)])),
    )


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("nearest_k", [1, 5])
def test_equals_brute_force(nearest_k: int, block: int) -> None:
    generator = torch.Generator().manual_seed(nearest_k)
    real = torch.randn(60, 6, generator=generator)
    fake = 0.8 * torch.randn(50, 6, generator=generator) + 0.5
    expected = brute_force(real.double().numpy(), fake.double().numpy(), nearest_k)
    assert all(0 < value < 1 for value in expected[:2])  # else the comparison says little
    assert prdc(real, fake, nearest_k=nearest_k, block=block) == pytest.approx(expected)


@pytest.mark.parametrize("block", [7, 1024])
def test_precision_and_recall_alone_equal_brute_force(block: int) -> None:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(60, 6, generator=generator)
    fake = 0.8 * torch.randn(50, 6, generator=generator) + 0.5
    expected = brute_force(real.double().numpy(), fake.double().numpy(), 3)
    assert precision_recall(real, fake, block=block) == pytest.approx(expected[:2])


def test_a_ball_of_the_authors_holds_its_border() -> None:
    """Distances that are exact: the third neighbour of 0 is at 3, and so is what was made."""
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0], [101.0], [102.0], [103.0]])
    fake = torch.tensor([[-3.0], [-3.5], [-500.0], [-600.0]])
    assert precision_recall(real, fake)[0] == 0.25
    assert prdc(real, fake, nearest_k=3).precision == 0
    with pytest.raises(ValueError, match="nearest_k=3"):
        precision_recall(real[:3], fake)


def test_equal_and_disjoint_sets() -> None:
    real = torch.randn(40, 6)
    assert prdc(real, real)[:2] == (1, 1)
    assert prdc(real, real).coverage == 1
    assert prdc(real, real + 100) == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_samples_with_as_many_copies_have_no_ball(size: float) -> None:
    """Six alike have five copies each; the sixth copy of five has not."""
    distinct = size * torch.randn(40, 600)
    real = torch.cat([distinct, distinct[:2].repeat(5, 1), distinct[2:3].repeat(4, 1)])
    found = prdc(real, distinct)
    assert (found.real_copies, found.generated_copies) == (12, 0)
    alike = distinct[:1].repeat(40, 1)
    assert prdc(alike, alike)[4:] == (40, 40)


def test_too_few_samples() -> None:
    with pytest.raises(ValueError, match="nearest_k=5"):
        prdc(torch.randn(5, 3), torch.randn(50, 3))
