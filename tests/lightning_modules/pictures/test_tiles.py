"""Tiles: nothing left out, nothing twice, and every result as if there were none."""

from __future__ import annotations

import pytest
import torch

from datamodules.assets.fetching import fetch
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.style import mean_std
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.networks.instance_norm import ConditionalInstanceNorm
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.tiles import merged_mean_std, tiles
from lightning_modules.style.adain import AdaINTransfer
from lightning_modules.style.fast_style import FastStyle
from tests.pictures import paintings, photographs


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 130), (17, 300)])
@pytest.mark.parametrize("side", [None, 1, 50, 64])
def test_each_pixel_is_one_tile_s_own(size: tuple[int, int], side: int | None) -> None:
    image = torch.arange(size[0] * size[1]).view(1, 1, *size)
    covered = torch.zeros(1, 1, *size)
    result = torch.full_like(image, -1)
    for tile in tiles(size, side, margin=20, multiple=8):
        covered[..., tile.top : tile.bottom, tile.left : tile.right] += 1
        tile.put(tile.seen(image), result)
        assert tile.seen_top % 8 == tile.seen_left % 8 == 0
        for edge, seen in ((tile.top, tile.seen_top), (tile.left, tile.seen_left)):
            assert seen == 0 or edge - seen >= 20
    assert (covered == 1).all()
    assert torch.equal(result, image)


def test_a_tile_s_side_must_be_positive() -> None:
    with pytest.raises(ValueError, match="tile is 0"):
        tiles((8, 8), 0, margin=1, multiple=1)


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    whole = torch.randn(1, 5, 40, 30, generator=torch.Generator().manual_seed(1)) * 3 + 1000
    parts = [part for rows in whole.split(7, dim=2) for part in rows.split(11, dim=3)]
    for merged, expected in zip(merged_mean_std(parts), mean_std(whole.double()), strict=True):
        torch.testing.assert_close(merged, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def published() -> AdaINTransfer:
    decoder = Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))
    return AdaINTransfer(VGG19(fetch("vgg19_normalized", progress=False)), decoder)


@pytest.mark.network
@pytest.mark.parametrize("masked", [False, True])
def test_adain_by_tiles_is_adain(published: AdaINTransfer, masked: bool) -> None:
    content, styles = photographs(165)[:1, :, :, :107], list(paintings(100).split(1))
    slope = torch.linspace(0, 1, 107).expand(165, 107)
    style = Style(styles, masks=torch.stack([slope, 1 - slope]) if masked else None, alpha=0.8)
    whole = published.stylize(content, style)
    torch.testing.assert_close(published.stylize(content, style, tile=80), whole, rtol=0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [FastStyleOptions("johnson"), FastStyleOptions("light"), FastStyleOptions("light", upsampling="bilinear")],
)
def test_fast_style_by_tiles_is_fast_style(options: FastStyleOptions) -> None:
    torch.manual_seed(0)
    family = FastStyle(styles=["a.png", "b.png"], noise_octaves=4, network=options)
    for norm in family.network.modules():
        if isinstance(norm, ConditionalInstanceNorm):
            torch.nn.init.normal_(norm.weight, 1, 0.3)
            torch.nn.init.normal_(norm.bias, 0, 0.3)
    content = photographs(165)[:1, :, :, :107]
    slope = torch.linspace(0, 1, 107).expand(165, 107)
    for style in (Style(weights=[1, 2]), Style(masks=torch.stack([slope, 1 - slope]))):
        whole = family.stylize(content, style)
        tiled = family.stylize(content, style, tile=80)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-3)
    assert all(norm.given is None for norm in family.network.modules() if isinstance(norm, ConditionalInstanceNorm))
