"""Several runs beside each other: their scores and losses in one chart each, their last samples, their configs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from gesso.common.strict_yaml import YAMLError, load_yaml
from launch.report.charts import Chart, Line, label, render, span
from launch.report.curves import best_of
from launch.report.embed import embed
from launch.report.pieces import Html, grid_of, image, section, table
from launch.report.record import Record, join_words, measured

#: Runs that can be told apart in one chart: as many as there are colours.
MOST = 6
PICTURE_BYTES = 400_000
#: More options than this are folded away: families have little in common.
FOLDED = 24


def comparison(records: Sequence[Record]) -> Html:
    """What stands in the page of a comparison; everything that comes from a run is escaped."""
    names = names_of(records)
    series: dict[str, list[Line]] = {}
    for name, record in zip(names, records, strict=True):
        for what, points in record.series.items():
            series.setdefault(what, []).append(Line(name, points))
    kimgs = [kimg for record in records for points in record.series.values() for kimg, _ in points]
    shared = span(kimgs) if kimgs else None
    scores = sorted(what for what in series if measured(what))
    losses = sorted(what for what in series if what.startswith(("loss/", "val/")))

    def charts(which: Sequence[str]) -> Html:
        drawn = [
            render(Chart(_title(what), series[what], _note(what, series[what]), marks=what in scores), shared)
            for what in which
        ]
        return grid_of("charts", [figure for figure in drawn if figure])

    heading = " · ".join(escape(name) for name in names)
    return "\n".join(
        [
            f"<header><p class='brand'><a href='/'>gesso</a></p><h1>{len(records)} runs</h1>"
            f"<p class='facts'><span>{heading}</span></p></header>",
            section("Samples", _samples(names, records)),
            section("Metrics", charts(scores) + _best(names, records)),
            section("Losses", charts(losses)),
            section("Where their configs differ", differences(names, [record.config for record in records])),
        ]
    )


def names_of(records: Sequence[Record]) -> list[str]:
    """A name for each run, of which no two are alike: its own, with its folder's where two have one name.

    Where these are alike, too, as those of two sweeps' trials are, as many of the folders around as tell them apart.
    """
    names, depth = [record.name for record in records], 0
    paths = [record.path.resolve().parts for record in records]
    while len(alike := {name for name, count in Counter(names).items() if count > 1}) and depth < max(map(len, paths)):
        depth += 1
        names = [
            f"{record.name} ({'/'.join(path[-depth:])})" if name in alike else name
            for name, record, path in zip(names, records, paths, strict=True)
        ]
    return names


def differences(names: Sequence[str], configs: Sequence[str]) -> Html:
    """A table of the options that are not the same in all configs (texts of YAML); "" where there are none."""
    flat = [flattened(config) for config in configs]
    options = [
        option
        for option in dict.fromkeys(option for one in flat for option in one)
        if len({one.get(option) for one in flat}) > 1
    ]
    # The run's own name and place differ always.
    shown = [option for option in options if option not in ("run.name", "run.root")]
    rows = [[escape(option), *(escape(one.get(option, "–")) for one in flat)] for option in shown]
    listed = table(["option", *names], rows)
    return f"<details><summary>{len(rows)} options</summary>{listed}</details>" if len(rows) > FOLDED else listed


def flattened(config: str) -> dict[str, str]:
    """``model.init_args.resolution`` -> ``32`` of a config's text; {} of what is no YAML."""
    try:
        content = load_yaml(config)
    except YAMLError:
        return {}
    found: dict[str, str] = {}

    def walk(value: object, path: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        elif path:
            found[path] = str(value)

    walk(content, "")
    return found


def _samples(names: Sequence[str], records: Sequence[Record]) -> Html:
    figures = []
    for name, record in zip(names, records, strict=True):
        if (files := record.pictures.get("samples")) and (picture := embed(files[-1][1], PICTURE_BYTES)):
            caption = f"<figcaption><b>{escape(name)}</b> <small>at {label(files[-1][0])} kimg</small></figcaption>"
            figures.append(f"<figure>{caption}{image(picture, name)}</figure>")
    return grid_of("pictures side", figures)


def _best(names: Sequence[str], records: Sequence[Record]) -> Html:
    rows = []
    for name, record in zip(names, records, strict=True):
        for metric in record.metrics():
            last = label(metric.points[-1][1])
            rows.append([escape(metric.name), escape(name), escape(metric.qualifier), last, best_of(metric)])
    return table(["metric", "run", "from", "last", "best"], sorted(rows, key=lambda row: row[0]))


def _title(what: str) -> str:
    known = measured(what)
    return known[1].title if known else what.partition("/")[2].replace("/", " ").replace("_", " ")


def _note(what: str, lines: Sequence[Line]) -> str:
    kind = what.partition("/")[2] if measured(what) else "held-out" if what.startswith("val/") else ""
    # A chart of one line has no legend.
    return join_words(kind, f"{lines[0].label} alone" if len(lines) == 1 else "")
