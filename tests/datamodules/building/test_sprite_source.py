"""Sprites as candidates of a build: each is drawn of its factors, which are its caption."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from datamodules.assets.sprites import draw
from datamodules.building.candidates import Item
from datamodules.building.sources import open_source


def test_items_are_drawn_of_their_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESSO_CACHE", str(tmp_path))
    source = open_source("sprites", tmp_path / "scratch")
    assert not source.official
    assert source.classes(set()) == ("heart", "wedge", "corner")
    for item in islice(source.items(), 5, None, 30_000):
        assert isinstance(item, Item)
        assert item.caption is not None
        words = dict(word.split("=") for word in item.caption.read().decode().split())
        assert list(words) == ["shape", "scale", "rotation", "x", "y"]
        code = tuple(map(int, words.values()))
        assert item.label == ("heart", "wedge", "corner")[code[0]]
        grey = source.decode(item, item.image.read(), None, 1, 10**6)
        assert np.array_equal(grey, draw(code)[:, :, None])
        assert np.array_equal(source.decode(item, item.image.read(), 3, 1, 10**6), np.repeat(grey, 3, axis=2))
