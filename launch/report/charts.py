"""Line charts as inline SVG: readable without a script, and with the values under the pointer where scripts run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from launch.report.record import Points, evenly, finite

#: In the SVG's own units; the page stretches it to the width of a column.
WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 466, 12, 206

#: More points than this on one line cannot be told apart.
MOST_POINTS = 500

#: Shorter curves are drawn as they were logged, without a mean over them.
LEAST_TO_SMOOTH = 30

#: Colours in page.css.
COLOURS = 6


@dataclass(frozen=True)
class Line:
    """A curve, with its standard deviation if it has one."""

    label: str
    points: Points
    spread: Points | None = None


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Args:
        title: what is measured.
        lines: the curves.
        note: what made the numbers; small print.
        marks: draw every point; else a curve of many points gets a mean over its neighbours.
        best: (kimg, value) of a point to single out.
        log: begin with a logarithmic axis of values, where all are more than 0.
    """

    title: str
    lines: list[Line]
    note: str = ""
    marks: bool = False
    best: tuple[float, float] | None = None
    log: bool = False


@dataclass(frozen=True)
class Axes:
    """Ranges of both axes, in units of the data; y on a log10 scale when ``log``."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def place(self, kimg: float, value: float) -> str:
        """A point in the SVG's units, inside the frame."""
        x = LEFT + (kimg - self.x[0]) / (self.x[1] - self.x[0]) * (RIGHT - LEFT)
        low, high, value = (math.log10(v) for v in (*self.y, value)) if self.log else (*self.y, value)
        y = BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)
        return f"{x:.1f},{min(max(y, TOP), BOTTOM):.1f}"


def render(chart: Chart, kimg: tuple[float, float] | None = None) -> str:
    """A chart as an HTML figure; "" when there is no finite value to draw.

    Args:
        chart: what is drawn.
        kimg: begin and end of the axis, the same for all charts of a page; None: those of its own points.
    """
    values = [value for line in chart.lines for _, value in finite(line.points)]
    if not values:
        return ""
    means = [[] if chart.marks else smoothed(line.points) for line in chart.lines]
    hover = [
        {"label": line.label, "points": [(x, float(f"{y:.5g}")) for x, y in finite(mean or thinned(line.points))]}
        for line, mean in zip(chart.lines, means, strict=True)
    ]
    switch = ""
    drawings = _svg(chart, means, _axes(chart, kimg, log=False))
    spread = any(line.spread for line in chart.lines)
    if (chart.log or not chart.marks) and not spread and min(values) > 0 and max(values) > 3 * min(values):
        switch = f'<label><input type="checkbox"{" checked" * chart.log}> log scale</label>'
        drawings += _svg(chart, means, _axes(chart, kimg, log=True))
    legend = "".join(
        f'<span class="key c{k % COLOURS}">{escape(line.label)}</span>'
        for k, line in enumerate(chart.lines)
        if len(chart.lines) > 1
    )
    broken = sum(len(line.points) - len(finite(line.points)) for line in chart.lines)
    notes = [chart.note, f"{broken:,} values were not finite" if broken else ""]
    return (
        f'<figure class="chart" data-lines="{escape(json.dumps(hover))}">{switch}'
        f"<figcaption><b>{escape(chart.title)}</b> <small>{escape(' · '.join(filter(None, notes)))}</small>"
        f'<span class="legend">{legend}</span></figcaption>{drawings}</figure>'
    )


def smoothed(points: Points) -> Points:
    """The mean over each point's neighbours, a 25th of the curve; [] for a curve too short to need it."""
    points = finite(points)
    if len(points) < LEAST_TO_SMOOTH:
        return []
    reach = len(points) // 50 + 1
    return [
        (points[k][0], fmean(value for _, value in points[max(0, k - reach) : k + reach + 1]))
        for k in evenly(range(len(points)), MOST_POINTS)
    ]


def thinned(points: Points) -> Points:
    """About ``MOST_POINTS`` of the points; of every stretch the lowest, the highest and a gap: no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(len(points) / (MOST_POINTS // 2))
    kept = [points[0]]
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        numbers = sorted(finite(stretch), key=lambda point: point[1])
        gaps = [point for point in stretch if not math.isfinite(point[1])]
        kept += sorted({*numbers[:1], *numbers[-1:], *gaps[:1]})
    return [*kept, points[-1]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between ``low`` and ``high``: multiples of 1, 2 or 5 times a power of ten, about ``count``."""
    power = 10 ** math.floor(math.log10((high - low) / count))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs((high - low) / step - count))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [multiple * step for multiple in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with their multiples by 2 and 5 where there is room."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    inside = [tick for tick in fine if low <= tick <= high]
    return inside if len(inside) <= 8 else [tick for tick in inside if tick in {10.0**e for e in exponents}]


def label(value: float) -> str:
    """A number in three digits, or as many as it has before the point: ``41.2``, ``12,800``, ``0.0031``."""
    return f"{value:,.0f}" if 999.5 <= abs(value) < math.inf else f"{value:.3g}"


def tick_label(value: float) -> str:
    """A round number on an axis, exactly: ``0.25``, ``25,000``, ``3,005k``."""
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    factor, suffix = next((unit for unit in units if abs(value) >= 1000 * unit[0]), (1.0, ""))
    return f"{value / factor:,.6g}{suffix}"


def _axes(chart: Chart, kimg: tuple[float, float] | None, *, log: bool) -> Axes:
    drawn = [point for line in chart.lines for point in finite(line.points)]
    for line in chart.lines:
        spread = dict(finite(line.spread or []))
        drawn += [(x, y + side * spread[x]) for x, y in finite(line.points) if x in spread for side in (-1, 1)]
    low, high = min(y for _, y in drawn), max(y for _, y in drawn)
    if low == high:
        low, high = (low / 2, low * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    elif log:
        margin = (high / low) ** 0.04
        low, high = low / margin, high * margin
    else:
        margin = 0.06 * (high - low)
        # A scale that starts at zero, where that costs little, lets heights be compared.
        low = 0.0 if 0 <= low <= (high - low) / 2 else low - margin
        high += margin
    return Axes(kimg or span([x for line in chart.lines for x, _ in line.points]), (low, high), log)


def span(kimgs: Sequence[float]) -> tuple[float, float]:
    """Begin and end of an axis for points at these kimg; those without a finite value count: the run still went on."""
    begin, end = min(kimgs), max(kimgs)
    begin = 0.0 if begin <= end / 2 else begin
    return begin, end if end > begin else begin + 1


def _svg(chart: Chart, means: list[Points], axes: Axes) -> str:
    frame = json.dumps({"x": axes.x, "y": axes.y, "log": axes.log, "box": [LEFT, RIGHT, TOP, BOTTOM]})
    parts = [
        f'<svg class="{"log" if axes.log else "linear"}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}" data-frame="{escape(frame)}">',
        _grid(axes),
    ]
    for k, (line, mean) in enumerate(zip(chart.lines, means, strict=True)):
        parts.append(f'<g class="c{k % COLOURS}">')
        if line.spread:
            parts.append(_band(line.points, dict(line.spread), axes))
        parts.append(_path(thinned(line.points), axes, "raw" if mean else "curve"))
        if mean:
            parts.append(_path(mean, axes, "curve"))
        if chart.marks and len(line.points) <= MOST_POINTS // 4:
            parts += [_dot(point, axes, "mark", 2.5) for point in finite(line.points)]
        parts.append("</g>")
    if chart.best is not None:
        parts.append(_best(chart.best, axes))
    return "".join(parts) + "</svg>"


def _grid(axes: Axes) -> str:
    parts = []
    for tick in (log_ticks if axes.log else ticks)(*axes.y):
        y = axes.place(axes.x[0], tick).split(",")[1]
        parts.append(
            f'<line class="rule" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text x="{LEFT - 7}" y="{y}" dy=".34em" text-anchor="end">{tick_label(tick)}</text>'
        )
    for tick in ticks(*axes.x, count=6):
        x = axes.place(tick, axes.y[1]).split(",")[0]
        parts.append(f'<text x="{x}" y="{BOTTOM + 16}" text-anchor="middle">{tick_label(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>')
    parts.append(f'<text class="unit" x="{RIGHT}" y="{BOTTOM + 30}" text-anchor="end">kimg</text>')
    return "".join(parts)


def _path(points: Points, axes: Axes, kind: str) -> str:
    """A line through the points, broken where a value is not finite."""
    parts: list[str] = []
    pen = "M"
    for kimg, value in points:
        if math.isfinite(value):
            parts.append(pen + axes.place(kimg, value))
        pen = "L" if math.isfinite(value) else "M"
    return f'<path class="{kind}" d="{"".join(parts)}"/>'


def _band(points: Points, spread: dict[float, float], axes: Axes) -> str:
    """The area of one standard deviation to either side."""
    centres = [(x, y, spread[x]) for x, y in finite(points) if math.isfinite(spread.get(x, math.nan))]
    upper = [axes.place(x, y + std) for x, y, std in centres]
    lower = [axes.place(x, y - std) for x, y, std in reversed(centres)]
    return f'<polygon class="band" points="{" ".join(upper + lower)}"/>'


def _dot(point: tuple[float, float], axes: Axes, kind: str, radius: float) -> str:
    x, y = axes.place(*point).split(",")
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}"/>'


def _best(point: tuple[float, float], axes: Axes) -> str:
    x, y = (float(part) for part in axes.place(*point).split(","))
    above = y - 10 if y > (TOP + BOTTOM) / 2 else y + 18
    anchor = "end" if x > RIGHT - 40 else "start" if x < LEFT + 40 else "middle"
    return _dot(point, axes, "best", 4.5) + (
        f'<text class="best" x="{x}" y="{above:.1f}" text-anchor="{anchor}">best {label(point[1])}</text>'
    )
