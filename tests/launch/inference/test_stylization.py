"""Masks of a stylisation: where styles go, and where the content stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from launch.inference.stylization import KeepColors, Request, stylize_picture
from lightning_modules.kinds.stylizer import Style
from lightning_modules.pictures.sizes import fit


class Painter:
    """A ``Stylizer`` that paints all of a picture grey."""

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        style.shares(content, len(style.pictures))
        return torch.full_like(content, 0.5)


@pytest.mark.parametrize("colors", ["no", "match", "luminance"])
@pytest.mark.parametrize("size", [None, 10])
def test_the_content_stays_where_no_mask_is_white(colors: KeepColors, size: int | None) -> None:
    torch.manual_seed(0)
    content, painting = torch.rand(1, 3, 16, 20) * 2 - 1, torch.rand(1, 3, 8, 8)
    mask = torch.zeros(1, 16, 20)
    mask[..., :10] = 1
    request = Request([painting], colors=colors, size=size)
    whole = stylize_picture(content, None, Painter(), request)
    made = stylize_picture(content, mask, Painter(), request)
    kept = content if size is None else fit(content, size)
    third = made.shape[3] // 3
    assert torch.equal(made[..., -third:], kept[..., -third:])
    assert torch.equal(made[..., :third], whole[..., :third])
    assert not torch.equal(made, kept)


def test_masks_that_are_black_all_over_are_refused() -> None:
    content = torch.zeros(1, 3, 16, 20)
    with pytest.raises(ValueError, match="black all over"):
        stylize_picture(content, torch.zeros(1, 16, 20), Painter(), Request([content]))


@pytest.mark.parametrize(("given", "side", "expected"), [(None, 16, None), (None, 40, 24), (16, 40, 16), (0, 40, None)])
def test_large_pictures_go_through_in_the_methods_own_tiles(
    given: int | None, side: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []

    class Tiled(Painter):
        tile_side = 24

        def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
            seen.append(tile)
            return content

    monkeypatch.setattr("launch.inference.stylization.LARGEST", 32**2)
    content = torch.zeros(1, 3, side, side)
    stylize_picture(content, None, Tiled(), Request([content], tile=given))
    assert seen == [expected]
