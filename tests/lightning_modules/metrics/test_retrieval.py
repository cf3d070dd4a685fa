"""Retrieval and neighbours: planted codes, and a count written out; disjoint quarters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.core.frozen import Frozen
from lightning_modules.metrics.evaluator import EvaluationOptions
from lightning_modules.metrics.retrieval import Codes, CodesEvaluator, neighbours_accuracy, retrieval
from lightning_modules.pictures.crops import quarters, random_squares
from tests.formulas import waves


def test_planted_codes_are_found_and_equal_ones_are_not() -> None:
    planted = torch.eye(10)[:, None].expand(10, 4, 10)
    assert retrieval(planted) == (1.0, 1.0)
    assert retrieval(torch.ones(10, 4, 3)) == (0.0, pytest.approx(0.1))
    # Quarters found among another picture's: rank 2 of those that are not 0.
    others = planted.clone()
    others[:, 1] = others[:, 1].roll(1, 0)
    share, mrr = retrieval(others)
    assert share == 0.5
    assert mrr == pytest.approx((0.5 * 1.0) + 0.5 * 0.1)


def test_ranks_are_those_of_numpys_sort() -> None:
    codes = waves(7, 4, 5)
    unit = codes.numpy() / np.linalg.norm(codes.numpy(), axis=2, keepdims=True)
    ranks = []
    for query, wanted in ((0, 1), (1, 0), (2, 3), (3, 2)):
        for picture in range(7):
            order = np.argsort(-(unit[:, wanted] @ unit[picture, query]))
            ranks.append(1 + int(np.flatnonzero(order == picture)[0]))
    share, mrr = retrieval(codes)
    assert share == pytest.approx(np.mean(np.array(ranks) == 1))
    assert mrr == pytest.approx(np.mean(1 / np.array(ranks)))
    assert 0 < share < 1


def test_neighbours_vote_as_scikit_learn_says() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    codes, labels = waves(30, 4) + torch.arange(30)[:, None] % 3, torch.arange(30) % 3
    right = []
    for left_out in range(30):
        others = [number for number in range(30) if number != left_out]
        voters = KNeighborsClassifier(5, metric="cosine").fit(codes[others].numpy(), labels[others].numpy())
        right.append(voters.predict(codes[left_out : left_out + 1].numpy())[0] == left_out % 3)
    assert neighbours_accuracy(codes, labels) == pytest.approx(np.mean(right))
    assert 0.34 < np.mean(right) < 1
    assert neighbours_accuracy(torch.eye(2).repeat(8, 1), torch.arange(16) % 2) == 1


def test_pictures_come_in_any_order() -> None:
    codes, labels = waves(9, 4, 3).float(), torch.arange(9) % 2
    metric = Codes(9, {"learned": 3})
    for rows in torch.randperm(9, generator=torch.Generator().manual_seed(1)).split(4):
        metric.update({"learned": codes[rows]}, labels[rows], rows)
    found, of = metric.compute()["learned"]
    assert torch.equal(found, codes)
    assert torch.equal(of, labels)


@pytest.mark.parametrize("side", [8, 9])
def test_quarters_share_no_pixel(side: int) -> None:
    numbers = torch.arange(side * side).view(1, 1, side, side).float()
    found = quarters(numbers)
    assert found.shape == (1, 4, 1, side // 2, side // 2)
    assert len(found.unique()) == found.numel()
    # The first two, and the last two, touch in a corner alone.
    assert [int(part[0, 0, 0]) for part in found[0]] == [
        0,
        (side - side // 2) * (side + 1),
        side - side // 2,
        (side - side // 2) * side,
    ]


def test_squares_are_cut_where_the_noise_says() -> None:
    images = waves(1, 2, 8, 8)
    half = {"size": 4, "scales": (0.5, 0.5)}
    corner = random_squares(images, torch.tensor([[0.9, 0.0, 0.0, 0.0]]), **half)
    torch.testing.assert_close(corner, images[:, :, :4, :4])
    mirrored = random_squares(images, torch.tensor([[0.1, 0.0, 0.0, 0.0]]), **half)
    torch.testing.assert_close(mirrored, images[:, :, :4, :4].flip(3))
    middle = random_squares(images, torch.tensor([[0.9, 0.0, 0.5, 0.5]]), **half)
    torch.testing.assert_close(middle, images[:, :, 2:6, 2:6])
    whole = random_squares(images, torch.tensor([[0.9, 0.5, 0.3, 0.8]]), size=8, scales=(1.0, 1.0))
    torch.testing.assert_close(whole, images)


def test_mixed_precision_of_the_training_leaves_the_raw_statistics_as_they_are() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Conv2d(3, channels, 1) for channels in (64, 128, 256, 512))

        def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
            return dict(zip(layers, (conv(images) for conv in self.maps), strict=True))

    class Coding:
        def codes(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

        def described(self) -> str:
            return "a StyleEncoder"

    torch.manual_seed(0)
    evaluator = CodesEvaluator(Coding(), EvaluationOptions(metrics=("retrieval",)), code_dim=3)
    evaluator._vgg = Frozen(Encoder())  # type: ignore[arg-type]
    images, found = waves(40, 3, 8, 8).float(), []
    for mixed in (False, True):
        evaluator.begin({}, len(images))
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            evaluator.update(torch.arange(len(images)), {"image": images})
        assert evaluator._codes is not None
        found.append(evaluator._codes.compute()["raw"][0])
    assert torch.equal(*found)
