"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: A radius below this share of the features' norm is none: what the rounding of distances leaves of 0.
_NOTHING = 1e-3


class PRDC(NamedTuple):
    """Precision, recall and coverage lie in [0, 1]; density may exceed 1.

    ``real_copies`` and ``generated_copies`` are the samples of each side with ``nearest_k`` exact copies or more: the
    radius of such a one is 0, and nothing lies inside its ball, not even a copy.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    real_copies: int = 0
    generated_copies: int = 0


def prdc(real: Tensor, fake: Tensor, *, nearest_k: int = 5, block: int = 1024) -> PRDC:
    """Compares two sets of features by balls around each sample that reach to its ``nearest_k``-th neighbour.

    Precision: fake samples inside a real ball. Recall: real samples inside a fake ball. Density: mean number of real
    balls around a fake sample, over ``nearest_k``. Coverage: real balls that hold a fake sample.

    Args:
        real: float32 [n, D].
        fake: float32 [m, D].
        nearest_k: the neighbour (itself not counted) that sets the radius.
        block: distances are held for this many samples against a whole set at a time.

    Raises:
        ValueError: too few samples for ``nearest_k``.
    """
    if min(len(real), len(fake)) <= nearest_k:
        raise ValueError(f"precision and recall with nearest_k={nearest_k} need more samples than that on each side")
    real_radii = _radii(real, nearest_k, block)
    fake_radii = _radii(fake, nearest_k, block)
    precise = real.new_zeros((), dtype=torch.int64)
    balls = torch.zeros_like(precise)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    nearest_fake = torch.full_like(real_radii, torch.inf)
    for samples, radii in zip(fake.split(block), fake_radii.split(block), strict=True):
        distances = torch.cdist(samples, real)
        inside = distances < real_radii
        precise += inside.any(dim=1).sum()
        balls += inside.sum()
        recalled |= (distances < radii[:, None]).any(dim=0)
        nearest_fake = torch.minimum(nearest_fake, distances.amin(dim=0))
    return PRDC(
        precision=precise.item() / len(fake),
        recall=recalled.double().mean().item(),
        density=balls.item() / (nearest_k * len(fake)),
        coverage=(nearest_fake < real_radii).double().mean().item(),
        real_copies=_copies(real, real_radii),
        generated_copies=_copies(fake, fake_radii),
    )


def precision_recall(real: Tensor, fake: Tensor, *, nearest_k: int = 3, block: int = 1024) -> tuple[float, float]:
    """Precision and recall as Kynkäänniemi et al. 2019 (arXiv:1904.06991) define them: a ball holds its border, too.

    So a sample with copies is inside of their balls, whose radius is 0.

    Args:
        real: float32 [n, D].
        fake: float32 [m, D].
        nearest_k: as in ``prdc``; 3 in the papers.
        block: as in ``prdc``.

    Raises:
        ValueError: too few samples for ``nearest_k``.
    """
    if min(len(real), len(fake)) <= nearest_k:
        raise ValueError(f"precision and recall with nearest_k={nearest_k} need more samples than that on each side")
    shares = []
    for balls, probes in ((real, fake), (fake, real)):
        radii = _radii(balls, nearest_k, block)
        inside = [(torch.cdist(rows, balls) <= radii).any(dim=1) for rows in probes.split(block)]
        shares.append(torch.cat(inside).double().mean().item())
    return shares[0], shares[1]


def _copies(features: Tensor, radii: Tensor) -> int:
    return int((radii <= _NOTHING * features.norm(dim=1)).sum())


def _radii(features: Tensor, nearest_k: int, block: int) -> Tensor:
    """Distance [n] of each sample to its ``nearest_k``-th neighbour; the sample itself is the nearest of all."""
    return torch.cat(
        [torch.cdist(rows, features).kthvalue(nearest_k + 1, dim=1).values for rows in features.split(block)]
    )
