"""Directions against NumPy, scikit-learn and planted ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.svm import LinearSVC

from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.latents.directions import (
    Moments,
    correlation,
    ganspace,
    interfacegan,
    linear_svm,
    sefa,
    unit_rows,
    without,
)
from tests.w_spaces import tiny, tiny3

RANDOM = np.random.default_rng(0)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=-1))


def test_sefa_is_numpys_eigenvectors_of_the_stacked_weights() -> None:
    weights = tiny().w_space().style_weights()
    assert len(weights) == tiny().w_space().num_ws == 6
    found = sefa(weights[1:4], 5)
    rows = np.concatenate([weight.numpy().astype(np.float64) for weight in weights[1:4]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(found.values, sizes[:5] ** 2, rtol=1e-10)
    np.testing.assert_allclose(np.abs((found.vectors.numpy() * axes[:5]).sum(1)), 1, rtol=1e-10)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()
    with pytest.raises(ValueError, match="9 directions: there can be 1 to 8"):
        sefa(weights, 9)


def test_ganspace_is_scikit_learns_pca_in_any_batches() -> None:
    w = RANDOM.normal(size=(500, 6)) @ RANDOM.normal(size=(6, 6)) + 100
    moments = Moments(6)
    for part in np.split(w, [3, 4, 250]):
        moments.update(torch.from_numpy(part))
    expected = PCA(3).fit(w)
    found = ganspace(moments, 3)
    np.testing.assert_allclose(moments.mean, w.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(w.T, bias=True), atol=1e-9)
    np.testing.assert_allclose(found.values, expected.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs((found.vectors.numpy() * expected.components_).sum(1)), 1, rtol=1e-9)
    np.testing.assert_allclose(moments.spread(found.vectors), (w @ found.vectors.numpy().T).std(0), rtol=1e-9)


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_the_support_vector_machine_is_scikit_learns(apart: float) -> None:
    signs = np.where(RANDOM.random(300) < 0.4, -1.0, 1.0)
    x = RANDOM.normal(size=(300, 5)) + apart * signs[:, None]
    expected = LinearSVC(C=0.7, tol=1e-10, max_iter=1_000_000).fit(x, signs)
    found = linear_svm(torch.from_numpy(x), torch.from_numpy(signs), weight=0.7)
    np.testing.assert_allclose(found, [*expected.coef_[0], *expected.intercept_], atol=1e-5)


def test_a_planted_direction_is_recovered() -> None:
    planted = unit_rows(torch.from_numpy(RANDOM.normal(size=16)))
    # w that spreads differently along its axes, as that of trained generators does.
    w = torch.from_numpy(RANDOM.normal(size=(4000, 16)) * np.linspace(0.5, 2, 16) + 3)
    found = interfacegan(w, torch.tanh(w @ planted - 3))
    assert cosine(found, planted) > 0.99
    assert float(found.norm()) == pytest.approx(1)
    assert cosine(interfacegan(w, -(w @ planted)), planted) < -0.99


def test_a_direction_leaves_others_as_they_are() -> None:
    direction, others = torch.tensor([1.0, 1, 1]), torch.tensor([[1.0, 0, 0], [2, 0, 0]])
    torch.testing.assert_close(without(direction, others), unit_rows(torch.tensor([0.0, 1, 1]).double()))
    with pytest.raises(ValueError, match="nothing is left"):
        without(torch.tensor([3.0, 0, 0]), others)


def test_scores_that_say_nothing_are_refused() -> None:
    w = torch.randn(20, 4)
    with pytest.raises(ValueError, match="no numbers"):
        interfacegan(w, torch.full((20,), torch.nan))
    with pytest.raises(ValueError, match="no lower than the highest"):
        interfacegan(w, torch.ones(20))
    with pytest.raises(ValueError, match="5 samples: too few"):
        interfacegan(w[:5], torch.arange(5.0))
    assert correlation(torch.ones(5), torch.arange(5.0)) == 0
    assert correlation(torch.arange(5.0), -torch.arange(5.0)) == pytest.approx(-1)


@pytest.mark.parametrize("make", [tiny, tiny3])
def test_each_w_has_the_weights_of_the_styles_that_it_gives(make: Callable[[], StyleGAN2]) -> None:
    space = make().w_space()
    affines = space.generator.synthesis.affines()
    ws = space.layers(space.sampled(torch.tensor([0]), seed=0))
    assert len(affines) == len(space.style_weights()) == space.num_ws
    for number, (affine, weight) in enumerate(zip(affines, space.style_weights(), strict=True)):
        assert torch.equal(affine.weight, weight)
        given: list[torch.Tensor] = []
        hook = affine.register_forward_hook(lambda module, inputs, result, seen=given: seen.append(inputs[0]))
        marked = ws.clone()
        marked[:, number] = 7
        space.images(marked)
        hook.remove()
        assert (given[0] == 7).all()
