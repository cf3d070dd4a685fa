"""Plots of a sweep as inline SVG: parallel coordinates, the Pareto front, effects and importances of options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from launch.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, log_ticks, tick_label, ticks
from launch.report.pieces import Html
from tune.effects import Effect
from tune.space import Dimension
from tune.sweep import Objective
from tune.watch import Row, comparable, ranked, short

#: The parallel coordinates' size, in the SVG's own units.
WIDE, TALL, EDGE = 1040, 340, 70
#: Width of a letter and height of a line of the labels, and the space that they take above the axes.
LETTER, LINE, HEADS = 6.6, 13, 5 * 13


class Scale:
    """Maps one option's or metric's values to [0, 1]."""

    def __init__(self, values: Sequence[Any], dimension: Dimension | None = None) -> None:
        self.names: list[str] | None = None
        self.log = bool(dimension and dimension.log)
        if dimension and dimension.values:
            self.names = [short(value) for value in dimension.values]
            return
        numbers = [float(value) for value in values]
        low, high = dimension.bounds if dimension and dimension.bounds else (min(numbers), max(numbers))
        self.low, self.high = (low, high) if low < high else (low - 0.5, high + 0.5)

    def __call__(self, value: Any) -> float:
        if self.names is not None:
            return (self.names.index(short(value)) + 0.5) / len(self.names)
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, float(value)))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def marks(self) -> list[tuple[float, str]]:
        """Positions in [0, 1] and their labels."""
        if self.names is not None:
            return [((k + 0.5) / len(self.names), name) for k, name in enumerate(self.names)]
        found = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, 4)
        return [(self(tick), tick_label(tick) if abs(tick) >= 1e-3 or tick == 0 else f"{tick:g}") for tick in found]


def parallel_coordinates(rows: Sequence[Row], dimensions: Sequence[Dimension], objectives: Sequence[Objective]) -> Html:
    """A line for each trial through its options and metrics; the better the first metric, the darker.

    Trials that ended early are dashed: their figures do not compare with those of the others.
    """
    measured = [row for row in rows if all(math.isfinite(row.value(objective)) for objective in objectives)]
    if len(measured) < 2:
        return ""
    axes: list[tuple[str, Scale]] = []
    for dimension in dimensions:
        drawn = [row.config[dimension.name] for row in measured if dimension.name in row.config]
        if drawn:
            axes.append((dimension.name, Scale(drawn, dimension)))
    axes += [(o.metric, Scale([row.value(o) for row in measured])) for o in objectives]
    places = [EDGE + k * (WIDE - 2 * EDGE) / max(1, len(axes) - 1) for k in range(len(axes))]
    order = ranked(measured, objectives[0])[::-1]
    whole = {row.id for row in comparable(measured)}
    room = (WIDE - 2 * EDGE) / max(1, len(axes) - 1)
    parts = [_axis(name, scale, x, room) for (name, scale), x in zip(axes, places, strict=True)]
    for rank, row in enumerate(order):
        values = {**row.config, **{objective.metric: row.value(objective) for objective in objectives}}
        points = [
            f"{x:.1f},{_up(scale(values[name])):.1f}"
            for (name, scale), x in zip(axes, places, strict=True)
            if name in values
        ]
        share = rank / max(1, len(order) - 1)
        best = rank == len(order) - 1
        colour, width = ("c1", 2.6) if best else ("c0", 1.4)
        style = f"stroke:var(--{colour});stroke-opacity:{0.15 + 0.6 * share:.2f};stroke-width:{width}"
        style += "" if row.id in whole else ";stroke-dasharray:4 4"
        title = f"<title>trial {row.number}, {row.kimg:g} kimg: {escape(_listed(values))}</title>"
        parts.append(f'<polyline fill="none" style="{style}" points="{" ".join(points)}">{title}</polyline>')
    early = "<small>dashed: trials that ended early</small>" if len(whole) < len(measured) else ""
    return f'<div class="chart">{early}<svg viewBox="0 0 {WIDE} {TALL}" role="img">{"".join(parts)}</svg></div>'


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def _up(share: float) -> float:
    return TALL - 12 - share * (TALL - 12 - HEADS - 14)


def _axis(name: str, scale: Scale, x: float, room: float) -> Html:
    """An axis with its marks, and its name above in as many lines as it has parts.

    Args:
        name: of the option or metric.
        scale: of its values.
        x: where it stands.
        room: how far it is from the next one.
    """
    marks = "".join(
        f'<text x="{x - 5:.1f}" y="{_up(at):.1f}" dy=".34em" text-anchor="end">{escape(text)}</text>'
        for at, text in scale.marks()
    )
    line = f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{_up(0):.1f}" y2="{_up(1):.1f}"/>'
    parts = [*name.removeprefix("model.").replace("/", ".").split("."), *(["(log)"] if scale.log else [])][-5:]
    # Letters are made smaller where the longest part has no room.
    size = min(1.0, room / (LETTER * max(map(len, parts)) + 4))
    heads = "".join(
        f'<text x="{x:.1f}" y="{HEADS - LINE * (len(parts) - 1 - k):.1f}" text-anchor="middle" '
        f'style="font-weight:600;font-size:{11 * size:.1f}px">{escape(part)}</text>'
        for k, part in enumerate(parts)
    )
    return line + marks + heads


def scatter(rows: Sequence[Row], front: Sequence[Row], objectives: Sequence[Objective]) -> Html:
    """The trials that trained longest, over two metrics, with the Pareto front as a line."""
    measured = [row for row in comparable(rows) if all(math.isfinite(row.value(objective)) for objective in objectives)]
    if len(objectives) < 2 or len(measured) < 2:
        return ""
    first, second = objectives[:2]
    across = Scale(_padded([row.value(first) for row in measured]))
    up = Scale(_padded([row.value(second) for row in measured]))

    def place(row: Row) -> tuple[float, float]:
        return _place(across(row.value(first)), up(row.value(second)))

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, front))
    parts = [
        _frame(across, up, _aim(first)),
        f'<polyline class="c1 curve" fill="none" style="stroke:var(--c1);stroke-width:1.5" points="{line}"/>',
    ]
    on_front = {row.id for row in front}
    for row in measured:
        shown = {**row.config, **{objective.metric: row.value(objective) for objective in objectives}}
        parts.append(_dot(place(row), "c1" if row.id in on_front else "c0", f"trial {row.number}: {_listed(shown)}"))
        if row.id in on_front:
            x, y = place(row)
            parts.append(f'<text x="{x + 7:.1f}" y="{y - 6:.1f}">{row.number}</text>')
    return _figure(_aim(second), f"over {_aim(first)}; the line is the Pareto front", HEIGHT, parts)


def effect(shown: Effect) -> Html:
    """A metric over an option: a dot for each trial."""
    across = Scale([], shown.dimension)
    up = Scale(_padded([y for *_, y in shown.points]))
    name = shown.dimension.name.removeprefix("model.")
    dots = [
        _dot(_place(across(x), up(y)), "c0", f"trial {number}: {name} {short(x)}, {shown.metric} {short(y)}")
        for number, x, y in shown.points
    ]
    frame = _frame(across, up, name + (" (log)" if across.log else ""))
    note = f"over {name}, at {shown.kimg:g} kimg; rank correlation {shown.rho:+.2f}"
    return _figure(shown.metric, note, HEIGHT, [frame, *dots])


def _frame(across: Scale, up: Scale, unit: str) -> Html:
    """Both axes of a plot."""
    parts = []
    for share, text in up.marks():
        _, y = _place(0.0, share)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y:.1f}" dy=".34em" text-anchor="end">{escape(text)}</text>')
    for share, text in across.marks():
        x, _ = _place(share, 0.0)
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<text class="unit" x="{RIGHT}" y="{BOTTOM + 30}" text-anchor="end">{escape(unit)}</text>')
    return "".join(parts)


def _place(across: float, up: float) -> tuple[float, float]:
    return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)


def _dot(place: tuple[float, float], colour: str, title: str) -> Html:
    x, y = place
    mark = f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(title)}</title></circle>'
    return f'<g class="{colour}">{mark}</g>'


def _figure(title: str, note: str, height: float, parts: Sequence[Html]) -> Html:
    caption = f"<figcaption><b>{escape(title)}</b> <small>{escape(note)}</small></figcaption>"
    drawing = f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
    return f'<figure class="chart">{caption}{drawing}</figure>'


def _aim(objective: Objective) -> str:
    return f"{objective.metric} {'↓' if objective.mode == 'min' else '↑'}"


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def importance_bars(shares: Mapping[str, float], objective: Objective) -> Html:
    """How much of a metric's variation each option explains, as bars."""
    if not shares:
        return ""
    height = 30
    names = [name.removeprefix("model.") for name in shares]
    left = min(WIDTH * 0.6, 8 + LETTER * max(map(len, names)))
    longest = WIDTH - left - 60
    rows = []
    for k, (name, share) in enumerate(sorted(zip(names, shares.values(), strict=True), key=lambda item: -item[1])):
        y, width = 8 + k * height, max(1.0, longest * share)
        rows.append(
            f'<text x="{left:.0f}" y="{y + 9}" dy=".34em" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left + 8:.0f}" y="{y}" width="{width:.1f}" height="18" rx="3" style="fill:var(--c0)"/>'
            f'<text x="{left + 16 + width:.1f}" y="{y + 9}" dy=".34em">{100 * share:.0f} %</text>'
        )
    return _figure(
        f"importance for {objective.metric}", "share of its variation (fANOVA)", 16 + height * len(shares), rows
    )
