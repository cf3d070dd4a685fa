"""Whitening and colouring: maps of features that take a content's mean and covariance to a style's (Li et al. 2017).

Moments of tiles add up to the whole picture's, and the transform is an affine map of each
place: a picture of any size needs the memory of its tiles alone. All is computed in float64: half of a covariance's
digits are lost in its root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Shares of the mean variance of which the least that lets Cholesky's factorisation succeed is added to variances.
JITTERS = (1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
#: Variance that is added in any case: a constant map has none of its own.
LEAST_VARIANCE = 1e-14
#: Stands for a sum of weights that is 0.
TINY = 1e-12
#: Places of a map that are computed with at a time.
PLACES = 1 << 16


@dataclass(frozen=True)
class Moments:
    """Number of places, mean and scatter Σ (x - μ) (x - μ)ᵀ of maps. Those of tiles add up to the picture's.

    They stand for n, Σ x and Σ x xᵀ, whose differences would cancel where means are far larger than deviations.

    Args:
        count: n, or the sum of the places' weights: float64 scalar.
        mean: float64 [N, C]; 0 of no place at all.
        scatter: float64 [N, C, C].
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor, place: Tensor | None = None) -> Moments:
        """The moments of each of N maps.

        Args:
            features: [N, C, H, W].
            place: weights of the places in [0, 1], [H, W], for a region's moments; None: 1 for all.
        """
        found: Moments | None = None
        with torch.autocast(features.device.type, enabled=False):
            for rows in _row_slices(*features.shape[2:]):
                part = cls._of_part(features[:, :, rows], None if place is None else place[rows])
                found = part if found is None else found + part
        assert found is not None
        return found

    @classmethod
    def _of_part(cls, features: Tensor, place: Tensor | None) -> Moments:
        x = features.double().flatten(2)
        if place is None:
            mean = x.mean(2)
            centred = x - mean[:, :, None]
            return cls(torch.full((), x.shape[2], dtype=x.dtype, device=x.device), mean, centred @ centred.mT)
        weights = place.double().flatten()
        count = weights.sum()
        mean = (x @ weights) / count.clamp_min(TINY)
        centred = x - mean[:, :, None]
        return cls(count, mean, (centred * weights) @ centred.mT)

    def __add__(self, other: Moments) -> Moments:
        """Of both together (Chan et al. 1979)."""
        count = self.count + other.count
        apart, share = other.mean - self.mean, other.count / count.clamp_min(TINY)
        between = self.count * share * apart[:, :, None] * apart[:, None, :]
        return Moments(count, self.mean + share * apart, self.scatter + other.scatter + between)

    def covariance(self) -> Tensor:
        """Covariance matrices with Bessel's correction: float64 [N, C, C]; 0 of a single place."""
        return self.scatter / (self.count - 1).clamp_min(1)


@dataclass(frozen=True)
class AffineMap:
    """x -> A x + b, the same at all places of a map.

    Args:
        matrix: A: float64 [N, C, C].
        shift: b: float64 [N, C].
    """

    matrix: Tensor
    shift: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Maps ``[N, C, H, W]`` to the same shape and dtype, in float64."""
        with torch.autocast(features.device.type, enabled=False):
            mapped = self.matrix @ features.double().flatten(2) + self.shift[:, :, None]
        return mapped.view(features.shape).to(features.dtype)

    def blended(self, alpha: float) -> AffineMap:
        """alpha A x + alpha b + (1 - alpha) x."""
        identity = torch.eye(self.matrix.shape[1], dtype=self.matrix.dtype, device=self.matrix.device)
        return AffineMap(alpha * self.matrix + (1 - alpha) * identity, alpha * self.shift)


def whitening(moments: Moments) -> AffineMap:
    """L⁻¹ (x - μ) with Σ = L Lᵀ: what the moments are of then has mean 0 and the identity as covariance."""
    factor = cholesky_factor(moments.covariance())
    identity = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    return _around(torch.linalg.solve_triangular(factor, identity, upper=False), moments.mean)


def cholesky_transfer(content: Moments, style: Moments) -> AffineMap:
    """L_s L_c⁻¹ (x - μ_c) + μ_s with Σ = L Lᵀ (Wen et al. 2023, "CAP-VSTNet", arXiv:2303.17867, section 3.3).

    Both factors are of matrices with the same rule of jitter, so that a content in its own style stays as it is. It has
    a gradient, and nothing of it is decided on the host.
    """
    ours, theirs = cholesky_factor(content.covariance()), cholesky_factor(style.covariance())
    return _around(torch.linalg.solve_triangular(ours, theirs, upper=False, left=False), content.mean, style.mean)


def symmetric_transfer(content: Moments, style: Moments, *, epsilon: float = 1e-5) -> AffineMap:
    """Σ_s^½ (Σ_c + ε)^-½ (x - μ_c) + μ_s with symmetric roots (Li et al. 2017, arXiv:1705.08086, section 3.3).

    Symmetric roots change the content least of all roots. ``epsilon`` is for the inverse alone, so that the result's
    covariance is the style's, where public code adds 1 to the variances of both.

    Args:
        content, style: moments.
        epsilon: share of the content's mean variance; directions of less variance stay unchanged or get fainter.
    """
    values, vectors = torch.linalg.eigh(_symmetric(content.covariance()))
    values = values.clamp_min(0)
    values = values + epsilon * values.mean(1, keepdim=True) + LEAST_VARIANCE
    inverse_root = (vectors * values.rsqrt()[:, None]) @ vectors.mT
    values, vectors = torch.linalg.eigh(_symmetric(style.covariance()))
    root = (vectors * values.clamp_min(0).sqrt()[:, None]) @ vectors.mT
    return _around(root @ inverse_root, content.mean, style.mean)


def cholesky_factor(covariance: Tensor) -> Tensor:
    """L with L Lᵀ = covariance + jitter, lower triangular: float64 [N, C, C].

    The jitter is the least of ``JITTERS`` with which the factorisation succeeds: no batch is skipped, no rank waits.
    """
    covariance = _symmetric(covariance)
    with torch.no_grad():
        identity = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
        mean = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(0)
        chosen = torch.full_like(mean, JITTERS[-1])
        for jitter in reversed(JITTERS[:-1]):
            tried = covariance + (jitter * mean + LEAST_VARIANCE)[:, None, None] * identity
            chosen = torch.where(torch.linalg.cholesky_ex(tried).info == 0, jitter, chosen)
        added = (chosen * mean + LEAST_VARIANCE)[:, None, None] * identity
    return torch.linalg.cholesky_ex(covariance + added).L


def region_moments(features: Tensor, share: Tensor) -> list[Moments]:
    """The moments of each of K regions of a map [1, C, H, W] whose places have shares [K, H, W] of them.

    Shares [K, 1, 1] are of all places alike: each region is the whole map.
    """
    if share.shape[1:] == (1, 1):
        return [Moments.of(features)] * len(share)
    return [Moments.of(features, place) for place in share]


def map_regions_(features: Tensor, maps: Sequence[AffineMap], share: Tensor) -> None:
    """Maps a map in place, each place by the mean of K affine maps with the place's shares.

    Args:
        features: [1, C, H, W].
        maps: K of them.
        share: with sums of 1: [K, H, W], or [K, 1, 1] for all places alike.
    """
    everywhere = share.shape[1:] == (1, 1)
    if everywhere:
        weights = share.double()[:, 0, 0].unbind()
        matrix = torch.stack([weight * each.matrix for weight, each in zip(weights, maps, strict=True)]).sum(0)
        shift = torch.stack([weight * each.shift for weight, each in zip(weights, maps, strict=True)]).sum(0)
        maps = [AffineMap(matrix, shift)]
    for rows in _row_slices(*features.shape[2:]):
        x = features[:, :, rows].double()
        if everywhere:
            mapped = maps[0](x)
        else:
            mapped = torch.zeros_like(x)
            for each, here in zip(maps, share[:, rows].double(), strict=True):
                mapped += here * each(x)
        features[:, :, rows] = mapped.to(features.dtype)


def _around(matrix: Tensor, mean: Tensor, target: Tensor | None = None) -> AffineMap:
    """matrix (x - mean) + target."""
    shift = -(matrix @ mean[:, :, None])[:, :, 0]
    return AffineMap(matrix, shift if target is None else shift + target)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _row_slices(height: int, width: int) -> Iterator[slice]:
    """Rows of a map, about ``PLACES`` places at a time."""
    step = max(1, PLACES // max(1, width))
    return (slice(top, top + step) for top in range(0, height, step))
