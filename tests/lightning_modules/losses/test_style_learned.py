"""InfoNCE between two views, and learned style losses: closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.losses.contrastive import info_nce, patch_nce, two_way_nce
from lightning_modules.losses.style_learned import domain_cross_entropy, style_cross_entropy, style_distance
from tests.formulas import waves


def test_equal_codes_cannot_be_told_apart() -> None:
    codes = F.normalize(waves(8), dim=0).expand(12, 8)
    assert two_way_nce(codes, codes).item() == pytest.approx(math.log(12), rel=1e-12)
    assert style_cross_entropy(codes, codes).item() == pytest.approx(math.log(12), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_orthonormal_codes_are_the_formulas(temperature: float) -> None:
    codes, own = torch.eye(9, dtype=torch.float64), math.exp(1 / temperature)
    expected = -math.log(own / (own + 8))
    assert two_way_nce(codes, codes, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_both_ways_have_gradients_and_the_reference_of_one_way_is_written_out() -> None:
    first, second = (F.normalize(waves(5, 7, number=n), dim=1).requires_grad_() for n in (1, 2))
    scores = torch.exp(first @ second.T / 0.1)
    forth, back = (-(scores.diagonal() / scores.sum(dim)).log().mean() for dim in (1, 0))
    torch.testing.assert_close(info_nce(first, second), forth)
    loss = two_way_nce(first, second)
    torch.testing.assert_close(loss, (forth + back) / 2)
    ours = torch.autograd.grad(loss, (first, second))
    torch.testing.assert_close(ours, torch.autograd.grad((forth + back) / 2, (first, second)))
    assert all(gradient.abs().max() > 0.01 for gradient in ours)
    torch.testing.assert_close(patch_nce(first[None], second[None], temperature=0.1), forth)


def test_distances_and_whether_results_are_of_their_styles() -> None:
    codes = torch.eye(4, dtype=torch.float64)
    assert style_distance(codes, codes).tolist() == [0] * 4
    assert style_distance(codes, codes.roll(1, 0)).tolist() == [1] * 4
    assert style_distance(codes, -codes).tolist() == [2] * 4
    styles = codes.clone().requires_grad_()
    results = codes.roll(1, 0).requires_grad_()
    # Each result is another's style.
    loss = style_cross_entropy(results, styles, temperature=1.0)
    assert loss.item() == pytest.approx(math.log(math.e + 3), rel=1e-12)
    loss.backward()
    assert styles.grad is None
    assert results.grad is not None


def test_classes_may_be_more_than_results() -> None:
    codes, styles = (F.normalize(waves(count, 5, number=count), dim=1) for count in (3, 7))
    own = torch.tensor([6, 0, 6])
    scores = torch.exp(codes @ styles.T / 0.2)
    expected = -(scores[torch.arange(3), own] / scores.sum(1)).log().mean()
    torch.testing.assert_close(style_cross_entropy(codes, styles, own, temperature=0.2), expected)
    torch.testing.assert_close(style_distance(codes[:, None], styles), 1 - codes @ styles.T)


def test_a_classifier_of_domains_is_the_formula() -> None:
    same = F.normalize(waves(8), dim=0).expand(12, 8)
    # Nothing tells the domains apart but how many pictures each has.
    assert domain_cross_entropy(same[:2], same[:3], same[:9]).item() == pytest.approx(math.log(4), rel=1e-12)
    codes, wanted, others = (F.normalize(waves(n, 5, number=n), dim=1).requires_grad_() for n in (4, 2, 3))
    share = [torch.exp(codes @ keys.T / 0.3).sum(1) for keys in (wanted, others)]
    loss = domain_cross_entropy(codes, wanted, others, temperature=0.3)
    torch.testing.assert_close(loss, -(share[0] / (share[0] + share[1])).log().mean())
    loss.backward()
    assert codes.grad is not None
    assert codes.grad.abs().max() > 0.01
    assert wanted.grad is None
    assert others.grad is None


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 5\] and \[2, 4\]"):
        info_nce(torch.zeros(2, 5), torch.zeros(2, 4))
