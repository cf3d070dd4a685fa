"""PatchNCE: closed forms, and a sum over places written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.losses.contrastive import patch_nce
from tests.formulas import waves


def test_equal_places_cannot_be_told_apart() -> None:
    row = F.normalize(waves(8), dim=0).expand(3, 20, 8)
    torch.testing.assert_close(patch_nce(row, row).item(), math.log(20))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_orthogonal_places_are_the_formulas(temperature: float) -> None:
    places = torch.eye(16, dtype=torch.float64).expand(2, 16, 16)
    own = math.exp(1 / temperature)
    expected = -math.log(own / (own + 15))
    assert patch_nce(places, places, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)

    # Each found where another is.
    turned = places.roll(1, dims=1)
    expected = -math.log(1 / (own + 15))
    assert patch_nce(turned, places, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_it_is_a_mean_over_places_whose_negatives_are_of_the_same_picture() -> None:
    queries, keys = (F.normalize(waves(2, 5, 7, number=number), dim=2) for number in (1, 2))
    terms = []
    for q, k in zip(queries, keys, strict=True):
        for place in range(5):
            scores = [math.exp(float(q[place] @ k[other]) / 0.07) for other in range(5)]
            terms.append(-math.log(scores[place] / sum(scores)))
    assert patch_nce(queries, keys).item() == pytest.approx(sum(terms) / 10, rel=1e-10)


def test_keys_have_no_gradient_and_halves_are_summed_in_full_precision() -> None:
    queries, keys = (F.normalize(waves(2, 5, 7, number=number), dim=2).float().requires_grad_() for number in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = patch_nce(queries, keys)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, patch_nce(queries, keys))
    assert queries.grad is not None
    assert keys.grad is None


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 5, 7\] and \[2, 4, 7\]"):
        patch_nce(torch.zeros(2, 5, 7), torch.zeros(2, 4, 7))
