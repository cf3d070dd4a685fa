"""Directions in W along which pictures change: SeFa, GANSpace and InterFaceGAN, as pure functions on tensors.

All results are float64 and of length 1; the entry of the largest magnitude is positive, where a method leaves the sign
open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Axes(NamedTuple):
    """Orthogonal directions [K, D], and how much each matters [K], the most first."""

    vectors: Tensor
    values: Tensor


def sefa(weights: Sequence[Tensor], count: int) -> Axes:
    """SeFa (Shen and Zhou 2021, arXiv:2007.06600): directions along which the styles of some layers change most.

    They are the eigenvectors of A'A, where A are the affine maps of all these layers, each style's row of length 1, as
    in the authors' code.

    Args:
        weights: of each layer's affine map, [styles, D].
        count: of directions.

    Returns:
        The directions, with the eigenvalues.

    Raises:
        ValueError: more directions than dimensions, or none.
    """
    rows = torch.cat([weight.double().cpu() for weight in weights])
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return _largest(rows.T @ rows, count)


class Moments:
    """Mean and covariance of vectors that come in batches, exact in float64 (Chan et al. 1979).

    Args:
        dim: dimensions of a vector.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, vectors: Tensor) -> None:
        """Adds vectors [N, D]."""
        vectors = vectors.double().cpu()
        total = self.count + len(vectors)
        mean = vectors.mean(0)
        centred, apart = vectors - mean, mean - self.mean
        self._scatter += centred.T @ centred + torch.outer(apart, apart) * (self.count * len(vectors) / total)
        self.mean = self.mean + apart * (len(vectors) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """[D, D], over the number of vectors."""
        return self._scatter / self.count

    def spread(self, directions: Tensor) -> Tensor:
        """Standard deviation along each of the directions [K, D] of length 1: [K]."""
        directions = directions.double().cpu()
        return torch.einsum("ki,ij,kj->k", directions, self.covariance, directions).clamp_min(0).sqrt()


def ganspace(moments: Moments, count: int) -> Axes:
    """GANSpace (Härkönen et al. 2020, arXiv:2004.02546): the principal components of w.

    The authors' incremental PCA approximates those of the covariance, which for w is small enough to be had exactly.

    Returns:
        The components, with each one's share of the variance.

    Raises:
        ValueError: more components than dimensions, or none.
    """
    axes = _largest(moments.covariance, count)
    return Axes(axes.vectors, axes.values / moments.covariance.trace())


def interfacegan(w: Tensor, scores: Tensor, *, share: float = 0.2) -> Tensor:
    """InterFaceGAN (Shen et al. 2020, arXiv:2005.09635): the normal of the plane between high and low scores.

    Args:
        w: [N, D].
        scores: [N]; the direction points to high ones.
        share: of the samples that count as high, and as low; those between are left out.

    Returns:
        [D].

    Raises:
        ValueError: scores that are no numbers, or do not differ; or too few samples for two on each side.
    """
    w, scores = w.double().cpu(), scores.double().cpu()
    if not scores.isfinite().all():
        raise ValueError("scores: some are no numbers")
    many = int(len(scores) * share)
    if many < 2:
        raise ValueError(f"{len(scores)} samples: too few, of which {share:.0%} are to be two or more on each side")
    order = scores.argsort()
    low, high = order[:many], order[-many:]
    if not scores[low].max() < scores[high].min():
        raise ValueError(f"scores: the lowest {many} of {len(scores)} samples are no lower than the highest {many}")
    chosen = w[torch.cat([low, high])]
    signs = torch.ones(2 * many, dtype=torch.float64)
    signs[:many] = -1
    # In units of the mean standard deviation, so that the loss's weight means the same for every generator.
    unit = w.var(0, correction=0).mean().sqrt().clamp_min(1e-300)
    return unit_rows(linear_svm((chosen - w.mean(0)) / unit, signs)[:-1])


def linear_svm(x: Tensor, signs: Tensor, *, weight: float = 1.0, tolerance: float = 1e-9) -> Tensor:
    """Linear support vector machine with squared hinge loss, by Newton's method (Keerthi and DeCoste 2005).

    Minimises |v|^2 / 2 + weight sum max(0, 1 - sign (v_1..D . x + v_D+1))^2: the problem of LIBLINEAR and of
    scikit-learn's ``LinearSVC``. It is convex and piecewise quadratic; Newton's steps end at its minimum after a few.

    Args:
        x: float64 [N, D].
        signs: -1 or 1, [N].
        weight: of the loss (the C of the literature).
        tolerance: on the gradient's length, relative to that at the start.

    Returns:
        float64 [D + 1]: normal and offset.
    """
    rows = torch.cat([x, x.new_ones(len(x), 1)], 1) * signs[:, None]
    solution = x.new_zeros(rows.shape[1])

    def value(at: Tensor) -> float:
        return float(at @ at / 2 + weight * (1 - rows @ at).clamp_min(0).square().sum())

    start = None
    for _ in range(100):
        slack = 1 - rows @ solution
        active = rows[slack > 0]
        gradient = solution - 2 * weight * active.T @ slack[slack > 0]
        length = float(gradient.norm())
        start = length if start is None else start
        if length <= tolerance * start:
            break
        curvature = torch.eye(len(solution), dtype=x.dtype) + 2 * weight * active.T @ active
        step = torch.linalg.solve(curvature, gradient)
        size, here, slope = 1.0, value(solution), float(gradient @ step)
        while size > 1e-8 and value(solution - size * step) > here - 1e-4 * size * slope:
            size /= 2
        solution = solution - size * step
    return solution


def without(direction: Tensor, others: Tensor) -> Tensor:
    """A direction [D] without its part along others [K, D]: what these stand for changes less (InterFaceGAN, sec. 3.2).

    Raises:
        ValueError: nothing is left of it.
    """
    direction, others = direction.double().cpu(), others.double().cpu()
    # An orthonormal basis of the others, also where they depend on each other.
    _, sizes, basis = torch.linalg.svd(others, full_matrices=False)
    basis = basis[sizes > 1e-6 * sizes.max()]
    rest = direction - basis.T @ (basis @ direction)
    if rest.norm() < 1e-4 * direction.norm():
        raise ValueError("the direction lies within those that are to be left out: nothing is left of it")
    return unit_rows(rest)


def unit_rows(vectors: Tensor) -> Tensor:
    """Vectors [..., D] at length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of [N] and [N]; 0 where one does not vary."""
    a, b = a.double().cpu() - a.double().mean().cpu(), b.double().cpu() - b.double().mean().cpu()
    product = float(a.norm() * b.norm())
    return float(a @ b) / product if product > 0 else 0.0


def _largest(matrix: Tensor, count: int) -> Axes:
    """Eigenvectors of the ``count`` largest eigenvalues of a symmetric matrix."""
    dim = len(matrix)
    if not 1 <= count <= dim:
        raise ValueError(f"{count} directions: there can be 1 to {dim}, the dimensions of w")
    values, vectors = torch.linalg.eigh(matrix)
    rows = vectors.T.flip(0)[:count]
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return Axes(rows * signs, values.flip(0)[:count])
