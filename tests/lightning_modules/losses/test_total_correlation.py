"""The KL term taken apart: against the authors' numbers, closed forms, and enumeration of all batches."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.total_correlation import (
    Sampling,
    decompose_kl,
    density_ratio_loss,
    log_density,
    log_importance_weights,
    permuted,
)
from lightning_modules.losses.variational import gaussian_kl
from lightning_modules.networks.latent_discriminator import LatentDiscriminator, LatentDiscriminatorOptions
from tests.formulas import waves


def test_weighted_sampling_is_the_authors() -> None:
    """Their loss without the reconstruction, and its gradients, with beta 6, lambda 0.25 and N 40."""
    mean, log_variance, z = waves(5, 3, number=1), waves(5, 3, number=2), waves(5, 3, number=3, scale=1.5)
    mean.requires_grad_()
    log_variance.requires_grad_()
    terms = decompose_kl(z, mean, log_variance, images=40, sampling="weighted")
    loss = terms.mutual_information + 6 * terms.total_correlation + 0.75 * terms.dimension_wise_kl
    assert loss.item() == pytest.approx(37.39688719460766, rel=1e-12)
    assert torch.stack(terms).sum().item() == pytest.approx(-2.930061386044876, rel=1e-12)
    loss.backward()
    for values, expected in ((mean, -4.7551092673491766), (log_variance, -0.18991256848035509)):
        assert values.grad is not None
        assert (values.grad * waves(5, 3, number=0.5)).sum().item() == pytest.approx(expected, rel=1e-12)


def test_stratified_sampling_is_right_on_average() -> None:
    """Over all batches of 3 out of 6 images, for a draw of each: q(z) itself."""
    images, size = 6, 3
    mean, log_variance, z = waves(images, 2, number=1), waves(images, 2, number=2), waves(images, 2, number=3)
    density = log_density(z[:, None], mean[None], log_variance[None]).sum(2).exp()
    weights = log_importance_weights("stratified", size, images).exp()
    for image in range(images):
        rest = [other for other in range(images) if other != image]
        batches = [[image, *others] for others in permutations(rest, size - 1)]
        found = [float(weights[0] @ density[image, batch]) for batch in batches]
        assert np.mean(found) == pytest.approx(density[image].mean().item(), rel=1e-12)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_estimates_are_numpys(sampling: Sampling) -> None:
    batch, images = 4, 9
    mean, log_variance, z = waves(batch, 2, number=1), waves(batch, 2, number=2), waves(batch, 2, number=3)
    m, v, draws = (values.numpy() for values in (mean, log_variance, z))
    density = np.exp(-0.5 * (draws[:, None] - m) ** 2 / np.exp(v)) / np.sqrt(2 * np.pi * np.exp(v))
    weights = np.full((batch, batch), 1 / (images * batch))
    if sampling == "stratified":
        weights = np.array([[1 / 9, 6 / 27, 1 / 3, 1 / 3], [1 / 3, 1 / 9, 6 / 27, 1 / 3], [0.0] * 4, [0.0] * 4])
        weights[2], weights[3] = [1 / 3, 1 / 3, 1 / 9, 6 / 27], [6 / 27, 1 / 3, 1 / 3, 1 / 9]
        np.testing.assert_allclose(weights.sum(1), 1)
    joint = np.log((weights * density.prod(2)).sum(1))
    apart = np.log((weights[:, :, None] * density).sum(1)).sum(1)
    own = np.log(density[range(batch), range(batch)]).sum(1)
    prior = np.log(np.exp(-0.5 * draws**2) / np.sqrt(2 * np.pi)).sum(1)
    terms = decompose_kl(z, mean, log_variance, images=images, sampling=sampling)
    expected = [(own - joint).mean(), (joint - apart).mean(), (apart - prior).mean()]
    np.testing.assert_allclose([term.item() for term in terms], expected, rtol=1e-12)


def correlated(count: int, correlation: float, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors of variance ``noise`` whose mean over images is N(0, [[1, r], [r, 1]]), and a draw of each."""
    generator = torch.Generator().manual_seed(0)
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance - noise * torch.eye(2))
    mean = torch.randn(count, 2, generator=generator, dtype=torch.float64) @ factor.T
    z = mean + math.sqrt(noise) * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return z, mean, torch.full_like(mean, math.log(noise))


def test_the_terms_of_a_gaussian_have_a_closed_form() -> None:
    """Of q(z) = N(0, C): I = log det(C) / 2 - log(noise), TC = -log(1 - r^2) / 2, and q(z_j) is the prior."""
    correlation, noise = 0.7, 0.2
    z, mean, log_variance = correlated(1500, correlation, noise)
    terms = decompose_kl(z, mean, log_variance, images=1500, sampling="stratified")
    total_correlation = -0.5 * math.log(1 - correlation**2)
    information = 0.5 * math.log(1 - correlation**2) - math.log(noise)
    assert terms.total_correlation.item() == pytest.approx(total_correlation, abs=0.03)
    assert terms.mutual_information.item() == pytest.approx(information, abs=0.05)
    assert terms.dimension_wise_kl.item() == pytest.approx(0, abs=0.03)
    kl = gaussian_kl(mean, log_variance).mean().item()
    assert kl == pytest.approx(total_correlation + information, abs=0.05)
    assert torch.stack(terms).sum().item() == pytest.approx(kl, abs=0.05)


def test_far_and_narrow_posteriors_stay_finite() -> None:
    mean = torch.tensor([[0.0, 0.0], [40.0, -40.0]], requires_grad=True)
    log_variance = torch.full((2, 2), -12.0, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        terms = decompose_kl(mean.bfloat16(), mean, log_variance, images=10, sampling="stratified")
    torch.stack(terms).sum().backward()
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms)
    assert mean.grad is not None
    assert mean.grad.isfinite().all()


def test_a_batch_of_one_and_an_unknown_sampling_are_refused() -> None:
    one = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="take two or more at a time"):
        decompose_kl(one, one, one, images=10, sampling="weighted")
    with pytest.raises(ValueError, match="'mss' is unknown; choose weighted or stratified"):
        log_importance_weights("mss", 2, 3)  # type: ignore[arg-type]


def test_each_latent_is_dealt_anew_by_itself() -> None:
    z, noise = waves(50, 4, number=1), torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    dealt = permuted(z, noise)
    expected = np.stack([z[:, j].numpy()[np.argsort(noise[:, j].numpy())] for j in range(4)], 1)
    assert np.array_equal(dealt.numpy(), expected)
    assert torch.equal(dealt.sort(0).values, z.sort(0).values)
    assert (dealt != z).any(0).all()


def test_the_ratio_loss_is_the_cross_entropy_of_two_logits() -> None:
    joint, apart = waves(6, 2, number=1), waves(5, 2, number=2)
    expected = 0.5 * (
        F.cross_entropy(joint, torch.zeros(6, dtype=torch.long)) + F.cross_entropy(apart, torch.ones(5).long())
    )
    found = density_ratio_loss(joint[:, 0] - joint[:, 1], apart[:, 0] - apart[:, 1])
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_trained_discriminators_logit_is_the_total_correlation() -> None:
    torch.manual_seed(0)
    critic = LatentDiscriminator(LatentDiscriminatorOptions(64, 2), latent_dim=2)
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    factor = torch.linalg.cholesky(torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    for _ in range(400):
        z = torch.randn(512, 2, generator=generator) @ factor.T
        loss = density_ratio_loss(critic(z), critic(permuted(z, torch.rand(512, 2, generator=generator))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = critic(torch.randn(20_000, 2, generator=generator) @ factor.T).mean().item()
    assert found == pytest.approx(-0.5 * math.log(1 - 0.8**2), abs=0.08)


def test_the_published_size() -> None:
    critic = LatentDiscriminator(latent_dim=10)
    assert sum(p.numel() for p in critic.parameters()) == 11 * 1000 + 4 * 1001 * 1000 + 1001
    assert critic(torch.zeros(3, 10)).shape == (3,)
