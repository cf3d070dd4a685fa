"""The report's charts: that curves are where the axes say, and what is left out of them is said or not missed."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from launch.report.charts import Chart, Line, label, log_ticks, render, smoothed, thinned, tick_label, ticks


def drawings(chart: Chart) -> dict[str, ElementTree.Element]:
    """``linear`` and ``log`` -> the SVG, parsed as strictly as XML is."""
    svgs = re.findall(r"<svg.*?</svg>", render(chart), re.DOTALL)
    return {svg.get("class", ""): svg for svg in map(ElementTree.fromstring, svgs)}


def stretches(svg: ElementTree.Element, kind: str = "curve") -> list[list[tuple[float, float]]]:
    """The unbroken stretches of a chart's first curve, in its own units."""
    path = next(path for path in svg.iter("path") if path.get("class") == kind)
    parts = path.attrib["d"].split("M")[1:]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in part.split("L"))] for part in parts]


def height_of(svg: ElementTree.Element, tick: str) -> float:
    """Where the axis says that a value is."""
    return next(float(text.attrib["y"]) for text in svg.iter("text") if text.text == tick and "x" in text.attrib)


def test_curve_runs_through_its_points() -> None:
    points = [(0.0, 10.0), (50.0, 40.0), (100.0, 20.0)]
    svg = drawings(Chart("a", [Line("a", points)]))["linear"]
    [(x0, y0), (x1, y1), (x2, y2)] = stretches(svg)[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert (y0 - y1) / (y2 - y1) == pytest.approx(30 / 20, abs=0.01)
    assert [y0, y1, y2] == pytest.approx([height_of(svg, tick) for tick in ("10", "40", "20")], abs=0.11)


def test_equal_factors_are_equal_heights_on_a_log_scale() -> None:
    chart = Chart("a", [Line("a", [(float(k), 10.0 ** (k - 3)) for k in range(6)])])
    assert set(drawings(chart)) == {"linear", "log"}
    svg = drawings(chart)["log"]
    heights = [y for _, y in stretches(svg)[0]]
    assert np.diff(heights) == pytest.approx([np.diff(heights).mean()] * 5, abs=0.11)
    assert heights[1] == pytest.approx(height_of(svg, "0.01"), abs=0.11)


@pytest.mark.parametrize("values", [[1.0, 0.0, 5.0], [1.0, -1.0, 5.0], [1.0, 1.1, 1.2]])
def test_no_log_scale_where_it_makes_no_sense(values: list[float]) -> None:
    assert set(drawings(Chart("a", [Line("a", list(enumerate(values)))]))) == {"linear"}


def test_values_that_are_not_finite_break_the_curve_and_are_counted() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 2.0), (5.0, 1.0), (9.0, math.nan)]
    chart = Chart("a", [Line("a", points)])
    assert [len(stretch) for stretch in stretches(drawings(chart)["linear"])] == [2, 2]
    assert "3 values were not finite" in render(chart)
    frame = json.loads(drawings(chart)["linear"].attrib["data-frame"])
    assert frame["x"] == [0.0, 9.0], "the run went on where its loss was not a number"
    assert render(Chart("a", [Line("a", [(0.0, math.nan)])])) == ""


@pytest.mark.parametrize(
    "values", [[3.0], [0.0, 0.0], [-2.0, -2.0], [1e30, 1e-30], [1.0, 1.0 + 1e-9], [1e-12, 3e-12], [3e6, 3.02e6]]
)
def test_any_range_can_be_drawn(values: list[float]) -> None:
    for svg in drawings(Chart("a", [Line("a", list(enumerate(values)))], best=(0.0, values[0]))).values():
        for x, y in [point for stretch in stretches(svg) for point in stretch]:
            assert 0 <= x <= 480
            assert 0 <= y <= 240
        assert "nan" not in ElementTree.tostring(svg, encoding="unicode")


def test_band_is_one_standard_deviation_wide() -> None:
    points, spread = [(1.0, 10.0), (2.0, 20.0)], [(1.0, 2.0), (2.0, 4.0)]
    svg = drawings(Chart("a", [Line("a", points, spread)], marks=True))["linear"]
    corners = [float(pair.split(",")[1]) for pair in next(svg.iter("polygon")).attrib["points"].split()]
    unit = (height_of(svg, "10") - height_of(svg, "20")) / 10
    expected = [height_of(svg, "0") - value * unit for value in (12, 24, 16, 8)]
    assert corners == pytest.approx(expected, abs=0.2)


def test_best_point_is_singled_out() -> None:
    points = [(1.0, 90.0), (2.0, 60.0), (3.0, 39.5), (4.0, 41.0)]
    svg = drawings(Chart("a", [Line("a", points)], marks=True, best=points[2]))["linear"]
    circle = next(circle for circle in svg.iter("circle") if circle.get("class") == "best")
    assert (float(circle.attrib["cx"]), float(circle.attrib["cy"])) == stretches(svg)[0][2]
    assert [text.text for text in svg.iter("text") if text.get("class") == "best"] == ["best 39.5"]


def test_smoothing_is_the_mean_of_the_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=200)
    smooth = smoothed([(float(k), float(value)) for k, value in enumerate(values)])
    assert [x for x, _ in smooth] == list(range(200))
    inside = np.convolve(values, np.ones(11) / 11, mode="valid")
    np.testing.assert_allclose([y for _, y in smooth][5:-5], inside, atol=1e-12)
    assert smooth[0][1] == pytest.approx(values[:6].mean())
    assert smooth[-1][1] == pytest.approx(values[-6:].mean())
    assert smoothed([(float(k), 1.0) for k in range(29)]) == []
    # A spike's weight goes when it leaves the window: nothing of 1e30 lingers in a running sum.
    spike = smoothed([(float(k), 1e30 if k == 50 else 0.1) for k in range(100)])
    assert spike[-1][1] == pytest.approx(0.1)


def test_thinning_keeps_spikes_gaps_and_ends() -> None:
    points = [(float(k), math.sin(k / 500)) for k in range(10_000)]
    points[4321], points[777], points[8000] = (4321.0, 50.0), (777.0, -50.0), (8000.0, math.nan)
    kept = thinned(points)
    assert len(kept) < 520
    assert {points[0], points[777], points[4321], points[8000], points[-1]} <= set(kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, ["0", "20", "40", "60", "80", "100"]),
        (0, 0.0007, ["0", "0.0002", "0.0004", "0.0006"]),
        (-2.1, 2.1, ["-2", "-1", "0", "1", "2"]),
        (3e6, 3.02e6, ["3,000k", "3,005k", "3,010k", "3,015k", "3,020k"]),
        (0, 25_000, ["0", "5,000", "10,000", "15,000", "20,000", "25,000"]),
        (0.951, 0.96, ["0.952", "0.954", "0.956", "0.958", "0.96"]),
    ],
)
def test_ticks(low: float, high: float, expected: list[str]) -> None:
    assert [tick_label(tick) for tick in ticks(low, high)] == expected


def test_log_ticks() -> None:
    assert log_ticks(0.9, 60) == [1, 2, 5, 10, 20, 50]
    assert log_ticks(1e-6, 1e3) == pytest.approx([10.0**k for k in range(-6, 4)])


def test_labels() -> None:
    numbers = [41.234, 0.00312, 999.9, 12_800.4, -1500.0, 0.0, math.inf]
    assert [label(number) for number in numbers] == ["41.2", "0.00312", "1,000", "12,800", "-1,500", "0", "inf"]
