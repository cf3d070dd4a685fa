"""Fréchet distance between Gaussians (Dowson and Landau 1982), the distance in FID (Heusel et al. 2017).

All of it in float64: in float32 the result is wrong in its first digit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """|mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2)), float64 scalar.

    With cov1 = L L^T, the eigenvalues of cov1 cov2 are those of the symmetric L^T cov2 L, which ``eigvalsh`` finds
    several times faster than a matrix square root is computed. Singular covariances are fine.

    Args:
        mean1: [D]; ``mean2`` too.
        cov1: [D, D], symmetric and positive semidefinite; ``cov2`` too.
    """
    mean1, cov1, mean2, cov2 = mean1.double(), cov1.double(), mean2.double(), cov2.double()
    factor = covariance_factor(cov1)
    trace = _sqrt_trace(factor.T @ cov2 @ factor)
    return _distance(mean1, cov1.trace(), mean2, cov2.trace(), trace)


def frechet_distance_to_features(mean: Tensor, cov: Tensor, features: Tensor) -> Tensor:
    """``frechet_distance`` between (``mean``, ``cov``) and the sample statistics of ``features`` [n, D].

    Exact as well, and much faster where n < D: the eigenvalue problem is n x n.
    """
    mean, cov, features = mean.double(), cov.double(), features.double()
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    trace = _sqrt_trace(centred @ cov @ centred.T)
    return _distance(mean, cov.trace(), features.mean(dim=0), centred.square().sum(), trace)


def covariance_factor(cov: Tensor) -> Tensor:
    """L with L L^T = ``cov`` [D, D]: Cholesky's factor, or the eigenvectors of positive eigenvalues when singular."""
    factor, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return factor
    eigenvalues, eigenvectors = torch.linalg.eigh(cov)
    positive = eigenvalues > eigenvalues.amax().clamp_min(0) * len(cov) * torch.finfo(cov.dtype).eps
    return eigenvectors[:, positive] * eigenvalues[positive].sqrt()


def _sqrt_trace(matrix: Tensor) -> Tensor:
    """Trace of the square root of a positive semidefinite matrix."""
    return torch.linalg.eigvalsh(matrix).clamp_min(0).sqrt().sum()


def _distance(mean1: Tensor, trace1: Tensor, mean2: Tensor, trace2: Tensor, sqrt_trace: Tensor) -> Tensor:
    # Rounding may leave -1e-10 between equal distributions.
    return ((mean1 - mean2).square().sum() + trace1 + trace2 - 2 * sqrt_trace).clamp_min(0)
