"""Garments in known colours as candidates of a build."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from datamodules.assets.tinted import PALETTES, apart, tinted
from datamodules.building.candidates import Item
from datamodules.building.sources import open_source


@pytest.mark.parametrize("name", PALETTES)
def test_a_picture_is_its_garment_and_its_colour(name: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    colors = np.arange(40) % 5
    pictures = np.stack([tinted(each, PALETTES[name][color]) for each, color in zip(grey, colors, strict=True)])
    found = apart(pictures, name)
    np.testing.assert_array_equal(found[0], grey)
    np.testing.assert_array_equal(found[1], colors)
    # By pixels: half a level is lost at most.
    exact = grey[3, ..., None] * np.array(PALETTES[name][3]) / 255
    assert np.abs(pictures[3] - exact).max() <= 0.5


@pytest.mark.network
def test_the_two_sets_have_different_garments_in_all_colours(tmp_path: Path) -> None:
    garments = {item.name: item for item in open_source("fashion_mnist", tmp_path).items()}
    names: dict[str, set[str]] = {}
    for name in PALETTES:
        source = open_source(name, tmp_path)
        assert not source.official
        found, colors = list(source.items()), []
        names[name] = {item.name for item in found}
        for item in islice(found, 0, None, 350):
            assert isinstance(item, Item)
            picture = source.decode(item, item.image.read(), None, 1, 10**6)
            grey, color = apart(picture[None], name)
            plain = garments[item.name]
            assert isinstance(plain, Item)
            assert item.label == plain.label
            assert grey.tobytes() == plain.image.read()
            assert np.array_equal(source.decode(item, item.image.read(), 1, 1, 10**6)[:, :, 0], grey[0])
            colors.append(int(color[0]))
        # About a fifth each of 100.
        assert np.bincount(colors, minlength=5).min() > 5
    warm, cold = names.values()
    assert len(warm) == len(cold) == 35_000
    assert not warm & cold
