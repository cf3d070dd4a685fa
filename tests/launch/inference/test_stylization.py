"""A picture of a stylisation: masks, tiles, and what is remembered of styles from one frame to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from launch.inference.stylization import KeepColors, Request, stylize_picture
from lightning_modules.core.frozen import Frozen
from lightning_modules.kinds.stylizer import Style, Stylizer
from lightning_modules.kinds.stylizing import StyleFamily
from lightning_modules.networks.cap_vst import ReversibleOptions
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.sizes import fit
from lightning_modules.style.cap_vst import CAPVST
from lightning_modules.style.wct2 import WCT2
from tests.formulas import waves
from tests.launch.export.families import tiny


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


def method(name: str) -> Stylizer:
    """A small family with random weights."""
    torch.manual_seed(0)
    if name == "CAPVST":
        return CAPVST(resolution=32, network=ReversibleOptions(width=4, blocks=1)).eval()
    if name == "WCT2":
        module = WCT2(resolution=32)
        module._encoder = Frozen(VGG19(None))
        return module.eval()
    found = tiny(name)
    assert isinstance(found, StyleFamily)
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", ["AdaIN", "MCCNet", "StyTr2", "CAPVST", "WCT2"])
def test_styles_are_looked_at_once_for_all_frames(name: str) -> None:
    """The second frame is the same, to the bit, as in a memory of its own, and asks the network for less."""
    frames, painting = waves(2, 3, 32, 32).float(), waves(1, 3, 48, 32, number=1).float()
    stylizer, convolutions = method(name), [0]

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        convolutions[0] += isinstance(module, nn.Conv2d)

    def made(frame: Tensor, request: Request) -> tuple[Tensor, int]:
        convolutions[0] = 0
        return stylize_picture(frame[None], None, stylizer, request), convolutions[0]

    request = Request([painting], alpha=0.8)
    handle = register_module_forward_hook(count)
    try:
        (_, first), (picture, second) = (made(frame, request) for frame in frames)
        (alone, asked), (matched, all_of_it) = (made(frames[1], replace(request, colors=c)) for c in ("no", "match"))
    finally:
        handle.remove()
    assert torch.equal(picture, alone)
    assert second < first == asked == all_of_it
    # In the colours of the picture, the style is another one each time.
    assert not torch.equal(matched, alone)
