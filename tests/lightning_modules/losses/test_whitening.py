"""Whitening and colouring against numpy's covariances and roots, and what they must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.losses import whitening as room
from lightning_modules.losses.whitening import (
    AffineMap,
    Moments,
    cholesky_factor,
    cholesky_transfer,
    map_regions_,
    symmetric_transfer,
    whitening,
)


def features(seed: int, height: int = 37, width: int = 41, channels: int = 12) -> Tensor:
    """A map whose channels are correlated, with means far from 0."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(channels, channels, generator=generator)
    x = torch.einsum("ij,njhw->nihw", mixed, torch.rand(2, channels, height, width, generator=generator))
    return x + 3 * torch.randn(2, channels, 1, 1, generator=generator)


def covariance(x: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([np.cov(each.double().flatten(1).numpy()) for each in x]))


def test_moments_are_numpy_s_and_those_of_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features(0)
    whole = Moments.of(x)
    torch.testing.assert_close(whole.mean, x.double().mean((2, 3)))
    torch.testing.assert_close(whole.covariance(), covariance(x), rtol=1e-11, atol=1e-11)
    parts = Moments.of(x[:, :, :5]) + Moments.of(x[:, :, 5:, :3]) + Moments.of(x[:, :, 5:, 3:])
    monkeypatch.setattr(room, "PLACES", 100)
    for other in (parts, Moments.of(x)):
        torch.testing.assert_close(other.covariance(), whole.covariance(), rtol=1e-11, atol=1e-11)
        assert other.count == 37 * 41


def test_moments_of_a_region_are_those_of_its_places() -> None:
    x, place = features(0), torch.zeros(37, 41)
    place[3:20, 7:] = 1
    region = Moments.of(x, place)
    torch.testing.assert_close(region.covariance(), covariance(x[:, :, 3:20, 7:]), rtol=1e-11, atol=1e-11)
    all_places = Moments.of(x, torch.ones(37, 41)).covariance()
    torch.testing.assert_close(all_places, Moments.of(x).covariance(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close((region + Moments.of(x, 1 - place)).covariance(), all_places, rtol=1e-11, atol=1e-11)
    empty = Moments.of(x, torch.zeros(37, 41))
    assert not empty.mean.any()
    assert not empty.covariance().any()


def test_whitened_features_have_the_identity_as_covariance() -> None:
    x = features(1).double()
    white = whitening(Moments.of(x))(x)
    assert (covariance(white) - torch.eye(12, dtype=torch.float64)).abs().max() < 1e-8
    assert white.mean((2, 3)).abs().max() < 1e-8


@pytest.mark.parametrize("transfer", [cholesky_transfer, symmetric_transfer])
def test_a_content_gets_the_style_s_statistics(transfer: object) -> None:
    x, style = features(2).double(), features(3, 20, 50).double()
    exact = {"epsilon": 0.0} if transfer is symmetric_transfer else {}
    mapped = transfer(Moments.of(x), Moments.of(style), **exact)(x)  # type: ignore[operator]
    scale = covariance(style).abs().amax()
    assert (covariance(mapped) - covariance(style)).abs().max() < 1e-8 * scale
    torch.testing.assert_close(mapped.mean((2, 3)), style.mean((2, 3)), rtol=1e-9, atol=1e-9)


def test_the_epsilon_belongs_to_the_inverse_alone() -> None:
    # Faint features, as networks have: the identity, added to both covariances, is most of the style's.
    x, style = features(2).double() * 0.1, features(3, 20, 50).double() * 0.1
    ours, theirs = covariance(x), covariance(style)

    def distance(mapped: Tensor) -> float:
        return float((covariance(mapped) - theirs).norm() / theirs.norm())

    assert distance(symmetric_transfer(Moments.of(x), Moments.of(style))(x)) < 1e-2

    def root(matrix: Tensor, power: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix + torch.eye(12, dtype=torch.float64))
        return (vectors * values.pow(power)[:, None]) @ vectors.mT

    public = AffineMap(root(theirs, 0.5) @ root(ours, -0.5), torch.zeros(2, 12, dtype=torch.float64))
    assert distance(public(x)) > 0.3


def test_symmetric_roots_are_scipy_s() -> None:
    from scipy.linalg import sqrtm

    x, style = features(4, channels=5)[:1], features(5, channels=5)[:1]
    ours, theirs = (covariance(each)[0].numpy() for each in (x, style))
    expected = sqrtm(theirs) @ np.linalg.inv(sqrtm(ours))
    found = symmetric_transfer(Moments.of(x), Moments.of(style), epsilon=0.0).matrix[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


def test_a_content_in_its_own_style_and_one_without_style_stay_as_they_are() -> None:
    x, style = features(6), features(7)
    torch.testing.assert_close(cholesky_transfer(Moments.of(x), Moments.of(x))(x), x)
    none = cholesky_transfer(Moments.of(x), Moments.of(style)).blended(0.0)
    torch.testing.assert_close(none(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [12, 200])
def test_dead_and_equal_channels_get_a_jitter_and_every_number_stays_finite(channels: int) -> None:
    x, style = features(8, 9, 13, channels), features(9, 7, 9, channels)
    x[:, 3] = 0.5
    x[:, 4] = x[:, 5]
    mapped = cholesky_transfer(Moments.of(x), Moments.of(style))(x)
    assert mapped.isfinite().all()
    assert mapped.abs().max() < 100 * style.abs().max()
    constant = torch.full_like(x, 0.7)
    for transfer in (cholesky_transfer, symmetric_transfer):
        flat = transfer(Moments.of(constant), Moments.of(style))(constant)
        torch.testing.assert_close(flat, style.mean((2, 3), keepdim=True).expand_as(flat), rtol=1e-4, atol=1e-4)


def test_a_matrix_of_full_rank_gets_no_more_than_the_least_jitter() -> None:
    matrix = covariance(features(10))
    factor = cholesky_factor(matrix)
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(factor @ factor.mT, matrix, rtol=1e-10, atol=1e-10)


def test_the_gradient_is_that_of_finite_differences() -> None:
    x, style = (features(seed, 5, 4, 3)[:1].double().requires_grad_() for seed in (11, 12))

    def mapped(x: Tensor, style: Tensor) -> Tensor:
        return cholesky_transfer(Moments.of(x), Moments.of(style))(x)

    assert torch.autograd.gradcheck(mapped, (x, style))


def test_regions_get_their_own_maps_and_one_label_equals_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PLACES", 100)
    x = features(13)[:1]
    maps = [cholesky_transfer(Moments.of(x), Moments.of(features(seed)[:1])) for seed in (14, 15)]
    share = torch.zeros(2, 37, 41)
    share[0, :, :20], share[1, :, 20:] = 1, 1
    mapped = x.clone()
    map_regions_(mapped, maps, share)
    torch.testing.assert_close(mapped[..., :20], maps[0](x)[..., :20])
    torch.testing.assert_close(mapped[..., 20:], maps[1](x)[..., 20:])
    one, none = x.clone(), x.clone()
    map_regions_(one, maps[:1], torch.ones(1, 37, 41))
    map_regions_(none, maps[:1], torch.ones(1, 1, 1))
    torch.testing.assert_close(one, none)
    half = x.clone()
    map_regions_(half, maps, torch.full((2, 1, 1), 0.5))
    torch.testing.assert_close(half, (maps[0](x) + maps[1](x)) / 2)
