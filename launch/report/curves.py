"""The charts and tables of a run's metrics and losses."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from launch.report.charts import Chart, Line, label, render, span
from launch.report.pieces import Html, grid_of, is_number, mapping, pictures_of, table
from launch.report.record import (
    Metric,
    Record,
    join_words,
    measured,
    sampling_in_words,
    settings_in_words,
    spreads_of,
)
from lightning_modules.metrics import specs

ARROWS = {"min": "↓", "max": "↑", None: ""}


def metric_charts(metrics: list[Metric]) -> list[Chart]:
    """A chart for each metric, or for those that the table puts together (precision and recall)."""
    charts: dict[tuple[str, str], list[Metric]] = {}
    for metric in metrics:
        kind = metric.quantity.chart or metric.quantity.name
        charts.setdefault((metric.network, kind), []).append(metric)
    return [
        Chart(
            title=" and ".join(metric.name for metric in together),
            lines=[Line(metric.name, metric.points, metric.spread) for metric in together],
            note=together[0].qualifier,
            marks=True,
            best=together[0].best if len(together) == 1 else None,
            log=together[0].quantity.axis == "log",
        )
        for together in charts.values()
    ]


def metric_table(metrics: list[Metric]) -> Html:
    rows = []
    for metric in metrics:
        best = best_of(metric)
        spread = f" <small>± {label(metric.spread[-1][1])}</small>" if metric.spread else ""
        first, last = label(metric.points[0][1]), label(metric.points[-1][1]) + spread
        name = f"{escape(metric.name)} <small>{ARROWS[metric.quantity.direction]}</small>"
        rows.append([name, escape(metric.qualifier), first, last, best])
    return table(["metric", "from", "first", "last", "best"], rows)


def best_of(metric: Metric) -> Html:
    """A metric's best value, and when it was."""
    return f"{label(metric.best[1])} <small>at {label(metric.best[0])} kimg</small>" if metric.best else "–"


def evaluation_table(record: Record) -> Html:
    """A table of the results of ``gesso evaluate`` for this run's checkpoints."""
    rows = []
    for result in record.evaluations:
        reference = mapping(result.get("reference"))
        against = pictures_of(reference)
        made = f"{result['samples']:,} samples" if is_number(result.get("samples")) else ""
        way, weights = str(result.get("direction") or ""), _weights_of(result)
        seen = f"{label(result['images_seen'] / 1000)} kimg" if is_number(result.get("images_seen")) else "–"
        for name, value in result.items():
            if (known := measured(name)) and is_number(value):
                std = next(filter(is_number, map(result.get, spreads_of(name))), None)
                spread = f" <small>± {label(std)}</small>" if std is not None else ""
                settings = settings_in_words(result.get("settings"), known[0])
                compared = f"against {against}" if against else ""
                sampling = sampling_in_words(result.get("sampling"))
                made_by = join_words(name.partition("/")[2], weights, way, made, sampling, compared, settings)
                rows.append([escape(known[1].title), escape(made_by), escape(seen), label(value) + spread])
    remarks = dict.fromkeys(
        str(remark)
        for result in record.evaluations
        for remark in (result["remarks"] if isinstance(result.get("remarks"), list) else [])
    )
    said = "".join(f'<p class="facts"><span>{escape(remark)}</span></p>' for remark in remarks)
    return table(["metric", "from", "checkpoint", "value"], rows) + said


def _weights_of(result: Mapping[str, Any]) -> str:
    """The weights that were measured, in words; empty of a checkpoint's average, which is what a run is known by."""
    file = Path(str(result.get("path") or ""))
    return join_words(file.stem if file.suffix == ".safetensors" else "", "raw" * (result.get("average") is False))


def loss_charts(record: Record) -> list[Chart]:
    """``loss/<network>/<quantity>`` and ``val/<quantity>``: one chart a quantity, one curve a network.

    Quantities that end alike (``real_logits``, ``fake_logits``) are of one kind and share a chart.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for name in sorted(record.series, key=lambda name: (name.startswith("val/"), name)):
        kind, _, rest = name.partition("/")
        if kind not in ("loss", "val") or not rest:
            continue
        source, _, quantity = rest.rpartition("/")
        source = "held-out" if kind == "val" else source
        groups.setdefault(quantity.rpartition("_")[2], []).append((source, quantity, name))
    charts = []
    # The losses themselves come first, then their parts.
    for kind, members in sorted(groups.items(), key=lambda item: (item[0] != "loss", item[0])):
        alike = len({quantity for _, quantity, _ in members}) == 1
        title = members[0][1] if alike else kind
        lines = [
            Line(source if alike else f"{source} {quantity.removesuffix(kind).strip('_')}".strip(), record.series[name])
            for source, quantity, name in members
        ]
        charts.append(Chart(title.replace("_", " "), lines))
    return charts


def other_charts(record: Record) -> list[Chart]:
    """Charts of all other logged values: images/s, learning rates ..."""
    known = {"loss", "val", "evaluation"}
    names = [name for name in record.series if name.partition("/")[0] not in known and not specs.quantity(name)]
    return [
        Chart("images/s" if name == "images_per_second" else name.replace("_", " "), [Line(name, record.series[name])])
        for name in sorted(names, key=lambda name: (name != "images_per_second", name))
    ]


def axis_of(record: Record) -> tuple[float, float] | None:
    """Begin and end, in kimg, of the axis that all of a run's charts share; None of a run that logged nothing."""
    kimgs = [kimg for points in record.series.values() for kimg, _ in points]
    return span(kimgs) if kimgs else None


def draw(charts: list[Chart], kimg: tuple[float, float] | None = None) -> Html:
    """The charts side by side, without those that have nothing to show; ``kimg`` as for ``charts.render``."""
    return grid_of("charts", [figure for chart in charts if (figure := render(chart, kimg))])
