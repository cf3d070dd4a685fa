"""The pool of generated pictures against one written with lists, picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from gesso.common.randomness import mix_seed
from lightning_modules.networks.picture_pool import PicturePool


def drawn(count: int, size: int, seed: int = 0) -> list[int]:
    """As a training step draws them."""
    return [mix_seed(seed, 1, number) % (2 * size) for number in range(count)]


def numbered(first: int, count: int) -> Tensor:
    """Pictures that are their numbers."""
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def with_lists(pictures: list[float], draws: list[int], size: int) -> tuple[list[float], list[float]]:
    """What is shown, and what stays."""
    pool: list[float] = []
    shown = []
    for picture, draw in zip(pictures, draws, strict=True):
        if len(pool) < size:
            pool.append(picture)
            shown.append(picture)
        elif draw < size:
            shown.append(pool[draw])
            pool[draw] = picture
        else:
            shown.append(picture)
    return shown, pool


@pytest.mark.parametrize("batch", [1, 3, 8, 60])
def test_it_fills_and_then_swaps_half_of_the_time(batch: int) -> None:
    size, count = 5, 120
    draws = drawn(count, size)
    pool = PicturePool(size, (1, 2, 2))
    shown = [
        pool.exchange(numbered(first, batch), draws[first : first + batch], before=first)[:, 0, 0, 0]
        for first in range(0, count, batch)
    ]
    expected, kept = with_lists([float(number) for number in range(count)], draws, size)
    assert torch.cat(shown).tolist() == expected
    assert pool.pictures[:, 0, 0, 0].tolist() == kept
    assert any(picture < number - 2 * size for number, picture in enumerate(expected))


def test_half_are_swapped_and_all_places_are_alike() -> None:
    size = 50
    draws = np.array([draw for step in range(400) for draw in drawn(8, size, seed=mix_seed(0, 8 * step))])
    swapped = draws[draws < size]
    assert stats.binomtest(len(swapped), len(draws)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(swapped, minlength=size)).pvalue > 1e-3


def test_what_is_shown_does_not_change_later() -> None:
    pool = PicturePool(1, (1, 2, 2))
    pool.exchange(numbered(7, 1), [0], before=0)
    shown = pool.exchange(numbered(8, 1), [0], before=1)
    pool.exchange(numbered(9, 1), [0], before=2)
    assert shown[0, 0, 0, 0] == 7
    assert pool.pictures[0, 0, 0, 0] == 9


def test_a_picture_that_is_not_finite_is_never_kept() -> None:
    pool = PicturePool(2, (1, 2, 2))
    fakes = numbered(1, 3).clone()
    pool.exchange(fakes[:2], [0, 0], before=0)
    fakes[2, 0, 0, 1] = torch.nan
    assert pool.exchange(fakes[2:], [1], before=2)[0, 0, 0, 0] == 2
    assert pool.pictures[:, 0, 0, 0].tolist() == [1, 2]
    assert pool.pictures.isfinite().all()


def test_without_a_pool_the_newest_are_shown() -> None:
    fakes = numbered(0, 3)
    assert PicturePool(0, (1, 2, 2)).exchange(fakes, [0, 0, 0], before=0) is fakes
