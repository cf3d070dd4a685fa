"""Scores of drawn shapes whose values are known."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.pictures import scores
from lightning_modules.pictures.scores import brightness, hue, scorer, slant, stroke_width, warmth


def bar(width: float, *, lean: float = 0.0, turned: float = 0.0, length: float = 40.0, side: int = 64) -> Tensor:
    """A bright bar with smooth edges on black: [1, 1, side, side].

    Args:
        width, length: in pixels.
        lean: upright, sheared to the right by so many degrees.
        turned: rotated by so many degrees.
    """
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64) - (side - 1) / 2] * 2, indexing="ij")
    x = x + y * math.tan(math.radians(lean))
    angle = math.radians(turned)
    x, y = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    inside = (width / 2 + 0.5 - x.abs()).clamp(0, 1) * (length / 2 + 0.5 - y.abs()).clamp(0, 1)
    return (inside * 2 - 1)[None, None].float()


def colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, 8, 8) * 2 - 1


def test_brightness_is_mean_luma() -> None:
    images = torch.cat([colour(0, 0, 0), colour(1, 1, 1), colour(1, 0, 0), colour(0.5, 0.5, 0.5)])
    torch.testing.assert_close(brightness(images), torch.tensor([0, 1, 0.299, 0.5]))
    half = torch.ones(1, 1, 8, 8)
    half[..., :4] = -1
    assert float(brightness(half)) == 0.5


def test_hue_is_the_colour_wheels_angle() -> None:
    wheel = [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)]
    found = hue(torch.cat([colour(*rgb) for rgb in wheel]))
    # 180 and -180 are one angle.
    torch.testing.assert_close(found % 360, torch.tensor([0.0, 60, 120, 180, 240, 300]), atol=1e-3, rtol=0)
    assert float(hue(torch.zeros(1, 1, 4, 4))) == 0
    torch.testing.assert_close(
        warmth(torch.cat([colour(1, 0, 0), colour(0, 0, 1), colour(0.3, 0.3, 0.3), colour(1, 1, 0)])),
        torch.tensor([1.0, -1, 0, 1]),
    )
    assert float(warmth(torch.zeros(1, 1, 4, 4))) == 0


@pytest.mark.parametrize("width", [2.0, 4.0, 7.0])
@pytest.mark.parametrize("turned", [0.0, 20.0, 45.0, 90.0])
def test_strokes_have_their_width(width: float, turned: float) -> None:
    # Of a bar, twice the area over the outline is w l / (w + l).
    expected = width * 40 / (width + 40)
    assert float(stroke_width(bar(width, turned=turned))) == pytest.approx(expected, rel=0.05)
    # Dark strokes on a bright ground are as wide.
    assert float(stroke_width(-bar(width, turned=turned))) == pytest.approx(expected, rel=0.05)
    assert float(stroke_width(torch.full((1, 1, 8, 8), -1.0))) == 0


@pytest.mark.parametrize("lean", [-30.0, -10.0, 0.0, 5.0, 20.0])
def test_a_sheared_bar_leans_by_its_angle(lean: float) -> None:
    for images in (bar(4, lean=lean), -bar(4, lean=lean), bar(4, lean=lean).expand(-1, 3, -1, -1)):
        assert float(slant(images)) == pytest.approx(lean, abs=0.1)
    assert float(slant(torch.full((1, 1, 8, 8), -1.0))) == 0


def test_scorers_are_ours_or_an_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scorer("slant") is slant
    declared = [EntryPoint("area", "math:floor", scores.GROUP), EntryPoint("lost", "math:nowhere", scores.GROUP)]
    declared.append(EntryPoint("constant", "math:pi", scores.GROUP))

    def points(group: str) -> Any:
        assert group == "gesso.scorers"
        return declared

    monkeypatch.setattr(scores, "entry_points", points)
    assert scorer("area") is math.floor
    with pytest.raises(ValueError, match="no scorer 'age'; there are brightness, .*, area, lost"):
        scorer("age")
    with pytest.raises(ImportError, match=r"scorer lost \(math:nowhere\) cannot be imported"):
        scorer("lost")
    with pytest.raises(ValueError, match="must be a function"):
        scorer("constant")
