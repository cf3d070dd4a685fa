"""Windows of tokens against Swin's own way to make them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.stytr2_layers import Attention
from lightning_modules.networks.windows import Windows
from tests.formulas import set_weights_, waves

CPU = torch.device("cpu")


def cyclic(x: Tensor, window: int, shift: int) -> Tensor:
    """Self-attention of one head, written as in Swin: roll, cut, hide what is of another region, roll back."""
    _, height, width, _ = x.shape
    regions = torch.zeros(1, height, width, 1)
    spans = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((rows, columns) for rows in spans for columns in spans):
        regions[:, rows, columns] = number

    def cut(y: Tensor) -> Tensor:
        y = y.unfold(1, window, window).unfold(2, window, window)  # [N, rows, columns, D, window, window]
        return y.flatten(0, 2).flatten(2).transpose(1, 2)

    parts, kinds = cut(x.roll((-shift, -shift), (1, 2))), cut(regions)
    mask = kinds == kinds.transpose(1, 2)
    found = F.scaled_dot_product_attention(parts, parts, parts, attn_mask=mask.repeat(len(x), 1, 1))
    grid = found.unflatten(1, (window, window)).unflatten(0, (len(x), height // window, width // window))
    return grid.transpose(2, 3).reshape(x.shape).roll((shift, shift), (1, 2))


def test_a_shift_is_swin_s_cyclic_shift_with_its_masks() -> None:
    x = waves(2, 8, 12, 5, scale=2.0)
    windows = Windows(8, 12, window=4, shift=2, device=CPU)
    parts = windows.split(x.flatten(1, 2))
    assert windows.mask is not None
    mask = windows.mask.repeat(2, 1, 1, 1)[:, 0].expand(-1, 16, -1)
    found = windows.merge(F.scaled_dot_product_attention(parts, parts, parts, attn_mask=mask))
    torch.testing.assert_close(found, cyclic(x, 4, 2).flatten(1, 2))


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (1, 5), (3, 2), (4, 11)])
def test_merging_is_the_inverse_of_splitting(height: int, width: int, shift: int) -> None:
    x = waves(3, height * width, 2)
    windows = Windows(height, width, window=4, shift=shift, device=CPU)
    parts = windows.split(x)
    assert parts.shape == (3 * windows.count, 16, 2)
    assert torch.equal(windows.merge(parts), x)
    if windows.mask is not None:
        assert windows.mask.sum() == height * width
        # No window is empty: attention over nothing is not a number.
        assert windows.mask.any(-1).all()


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 7), (8, 3)])
def test_a_window_as_large_as_the_map_is_full_attention(height: int, width: int, shift: int) -> None:
    attention = Attention(12, 3, dropout=0.0).double()
    set_weights_(attention)
    x = waves(2, height * width, 12)
    windows = Windows(height, width, window=8, shift=shift, device=CPU)
    assert windows.count == 1
    torch.testing.assert_close(attention(x, x, x, windows), attention(x, x, x), rtol=0, atol=1e-12)


def test_tokens_see_their_own_window_and_no_other() -> None:
    attention = Attention(4, 1, dropout=0.0).double()
    set_weights_(attention, 1.0)
    x = waves(1, 64, 4)
    changed = x.clone()
    changed[:, 0] += 1
    for shift, side in ((0, 4), (2, 2)):
        windows = Windows(8, 8, window=4, shift=shift, device=CPU)
        moved = (attention(x, x, x, windows) - attention(changed, changed, changed, windows)).abs().sum(2)
        seen = torch.zeros(8, 8, dtype=torch.bool)
        seen[:side, :side] = True
        assert torch.equal(moved.view(8, 8) > 1e-9, seen)
