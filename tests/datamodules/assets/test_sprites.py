"""Sprites: what their factors do to the picture, and that they are made without a network."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from datamodules.assets.fetching import fetch, is_cached
from datamodules.assets.sprites import CAPTIONS, CODES, FACTORS, SHAPES, SIDE, draw
from gesso.cli.main import main


def centre(picture: np.ndarray) -> tuple[float, float]:
    """Of mass: x and y in pixels."""
    weights = picture / picture.sum()
    places = np.arange(SIDE) + 0.5
    return float((weights.sum(0) * places).sum()), float((weights.sum(1) * places).sum())


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_place_moves_the_shape_and_a_scale_grows_it(shape: int) -> None:
    start = centre(draw((shape, 3, 5, 0, 0)))
    step = (SIDE - 32) / 15
    for x, y in ((1, 0), (0, 1), (15, 15), (7, 12)):
        moved = centre(draw((shape, 3, 5, x, y)))
        np.testing.assert_allclose(np.subtract(moved, start), [x * step, y * step], atol=0.1)
    areas = [float(draw((shape, scale, 3, 8, 8)).sum()) / 255 for scale in range(6)]
    expected = [(7 + 7 * scale / 5) ** 2 for scale in range(6)]
    np.testing.assert_allclose(np.divide(areas, areas[5]), np.divide(expected, expected[5]), rtol=0.05)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_four_rotations_are_a_quarter_turn(shape: int) -> None:
    for scale, rotation, x, y in ((5, 0, 7, 3), (0, 3, 0, 15), (2, 14, 9, 9)):
        turned = draw((shape, scale, (rotation + 4) % 16, y, 15 - x))
        assert np.array_equal(turned, np.rot90(draw((shape, scale, rotation, x, y))))


def test_every_picture_is_another_and_nothing_is_cut_off() -> None:
    found = set()
    for shape, scale, rotation in product(range(3), range(6), range(16)):
        picture = draw((shape, scale, rotation, 0, 15))
        inner = draw((shape, scale, rotation, 8, 8))
        assert picture.max() == 255
        assert float(picture.sum()) == pytest.approx(float(inner.sum()), rel=0.08)
        found.add(picture.tobytes())
    assert len(found) == 3 * 6 * 16


def test_pictures_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for shape, rotation in product(range(3), range(16)):
        digest.update(draw((shape, (shape + rotation) % 6, rotation, rotation, 15 - rotation)).tobytes())
    assert digest.hexdigest() == "cc5c9d39ff396fe521aec3bd154b3a11131943cd2bad726e74babe4125005fbf"


def test_the_asset_is_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GESSO_CACHE", str(tmp_path))
    monkeypatch.setenv("GESSO_OFFLINE", "1")
    folder = fetch("sprites", progress=False)
    assert is_cached("sprites")
    codes = np.fromfile(folder / CODES, np.uint8).reshape(-1, len(FACTORS))
    assert len(codes) == len(np.unique(codes, axis=0)) == np.prod(list(FACTORS.values())) == 73_728
    lines = (folder / CAPTIONS).read_text().splitlines()
    assert len(lines) == 73_728
    assert lines[0] == "shape=0 scale=0 rotation=0 x=0 y=0"
    assert lines[-1] == "shape=2 scale=5 rotation=15 x=15 y=15"
    assert main(["fetch", "--list"]) == 0
    assert "made here" in capsys.readouterr().out
