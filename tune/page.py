"""A sweep's report as one self-contained HTML file."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from launch.report import document, origins
from launch.report.charts import Chart, Line, label
from launch.report.curves import draw
from launch.report.embed import embed
from launch.report.pieces import Html, definitions, duration, grid_of, image, is_number, mapping, section
from launch.report.pieces import table as html_table
from launch.runs.folder import RunFolder
from tune.effects import effects
from tune.importance import importances
from tune.outcome import Outcome
from tune.plots import effect, importance_bars, parallel_coordinates, scatter
from tune.space import Space
from tune.sweep import Sweep
from tune.watch import Row, is_baseline, name_of, ranked, short

#: Number of trials whose curves and grids are shown.
SHOWN = 6
#: Most plots of a metric over an option.
MOST_EFFECTS = 24
#: Most bytes that all grids may take.
GRIDS = 4_000_000


def write_page(sweep: Sweep, outcome: Outcome) -> Path:
    """Writes ``report.html`` into a sweep's folder.

    Raises:
        OSError: it cannot be written; an earlier report stays.
    """
    rows, space = outcome.rows, sweep.space
    best = ranked(rows, sweep.objectives[0])
    first = [row for row in best if is_baseline(sweep, row)]
    chosen = list({row.id: row for row in [*outcome.chosen, *first, *best]}.values())
    importance = [importance_bars(importances(rows, space, o), o) for o in sweep.objectives]
    body = "\n".join(
        [
            _header(sweep, outcome),
            _tiles(sweep, outcome),
            section("Parallel coordinates", parallel_coordinates(rows, list(space), sweep.objectives)),
            section(
                "What mattered",
                grid_of("charts", [*filter(None, [scatter(rows, outcome.chosen, sweep.objectives), *importance])]),
            ),
            section(
                "What each option moved",
                grid_of("charts", [effect(shown) for shown in effects(rows, space, sweep.objectives)[:MOST_EFFECTS]]),
            ),
            section("Curves", draw(_curves(sweep, chosen[:SHOWN]))),
            section("Pictures of the best trials", _pictures(sweep, chosen[:SHOWN])),
            section("Trials", _table(sweep, space, [*best, *(row for row in rows if row not in best)], outcome.chosen)),
            section("Go on", _commands(sweep, outcome)),
            *_surroundings(sweep, rows),
            section("Space", f"<pre>{escape((sweep.path / 'space.yaml').read_text())}</pre>"),
        ]
    )
    return document.write_page(sweep.path / "report.html", document.document(sweep.path.name, body))


def _surroundings(sweep: Sweep, rows: Sequence[Row]) -> list[Html]:
    """What the trials were trained on and made with, as the first that knows it has noted it."""
    info = next((info for row in rows if (info := _info(sweep, row)).get("versions")), {})
    own = {"wandb_id", "wandb_mode", "wandb_folder", "seed"}
    shared = {name: fact for name, fact in info.items() if name not in own}
    return [section("Trained on", origins.trained_on(shared)), section("Made with", origins.made_with(shared))]


def _header(sweep: Sweep, outcome: Outcome) -> Html:
    state = "finished" if outcome.over else "interrupted"
    how = {"random": "random draws", "tpe": "TPE"}[sweep.search] + (
        f", {sweep.scheduler}" if sweep.scheduler != "none" else ""
    )
    facts = [how, f"seed {sweep.seed}", f"{sweep.kimg:g} kimg a trial"]
    return (
        f"<header><p class='brand'>gesso</p><h1>{escape(sweep.path.name)}</h1>"
        f'<p class="facts"><span class="state {state}">{state}</span>'
        + "".join(f"<span>{escape(fact)}</span>" for fact in facts)
        + "</p></header>"
    )


def _tiles(sweep: Sweep, outcome: Outcome) -> Html:
    rows = outcome.rows
    counts = {state: sum(row.state == state for row in rows) for state in ("finished", "stopped", "failed")}
    seconds = sum(_info(sweep, row).get("seconds") or 0 for row in rows)
    spent, whole = sum(row.kimg for row in rows), sweep.kimg * len(rows)
    tiles = [
        ("trials", str(len(rows)), ", ".join(f"{count} {state}" for state, count in counts.items() if count)),
        (
            "trained on",
            f"{label(spent)} kimg",
            f"{100 * spent / whole:.0f} % of all trials to their end" if whole else "",
        ),
        ("training time", duration(seconds), "of all trials together"),
    ]
    if outcome.chosen and len(sweep.objectives) == 1:
        (best,), (objective,) = outcome.chosen, sweep.objectives
        own = next((row for row in rows if is_baseline(sweep, row) and row.reports), None)
        beside = f"; the recipe's own: {label(own.value(objective))}" if own is not None and own is not best else ""
        tiles.insert(0, (objective.metric, label(best.value(objective)), f"trial {name_of(sweep, best)}{beside}"))
    elif outcome.chosen:
        tiles.insert(
            0, ("Pareto front", f"{len(outcome.chosen)} trials", ", ".join(o.metric for o in sweep.objectives))
        )
    return grid_of(
        "tiles",
        [
            f"<div><small>{escape(what)}</small><strong>{escape(figure)}</strong><small>{escape(beside)}</small></div>"
            for what, figure, beside in tiles
        ],
    )


def _curves(sweep: Sweep, rows: Sequence[Row]) -> list[Chart]:
    if all(len(row.reports) < 2 for row in rows):
        return []
    return [
        Chart(
            objective.metric,
            [
                Line(
                    f"trial {name_of(sweep, row)}",
                    [(r.kimg, r.metrics.get(objective.metric, math.nan)) for r in row.reports],
                )
                for row in rows
            ],
            note="the best trials",
            marks=True,
        )
        for objective in sweep.objectives
    ]


def _pictures(sweep: Sweep, rows: Sequence[Row]) -> Html:
    figures = []
    for row in rows:
        files = sorted((sweep.trials / row.id / "samples").glob("[0-9]*.png"))
        picture = embed(files[-1], GRIDS // SHOWN) if files else None
        if picture:
            drawn = ", ".join(f"{name.removeprefix('model.')} {short(value)}" for name, value in row.config.items())
            caption = f"<figcaption><b>trial {name_of(sweep, row)}</b> <small>{escape(drawn)}</small></figcaption>"
            figures.append(f"<figure>{caption}{image(picture, f'trial {row.number}')}</figure>")
    return grid_of("charts pictures", figures)


def _table(sweep: Sweep, space: Space, rows: Sequence[Row], chosen: Sequence[Row]) -> Html:
    heads = [
        "trial",
        "",
        "seconds",
        *(d.name.removeprefix("model.") for d in space),
        "kimg",
        *(o.metric for o in sweep.objectives),
    ]
    cells = []
    for row in rows:
        values = [escape(short(row.config[d.name])) if d.name in row.config else "–" for d in space]
        figures = [label(row.value(objective)) if row.reports else "–" for objective in sweep.objectives]
        star = " ★" if row in chosen else ""
        state = escape(row.state) + (f" <small>{escape(row.error)}</small>" if row.error else "")
        info = _info(sweep, row)
        seconds = label(info["seconds"]) if is_number(info.get("seconds")) else "–"
        cells.append([f"{_link(sweep, row)}{star}", state, seconds, *values, f"{row.kimg:g}", *figures])
    return html_table(heads, cells)


def _link(sweep: Sweep, row: Row) -> Html:
    """A trial's number, with a link to its own report where it has one."""
    report = sweep.trials / row.id / "report.html"
    where = quote(os.path.relpath(report, sweep.path))
    name = name_of(sweep, row)
    return f'<a href="{where}">{name}</a>' if report.is_file() else name


def _info(sweep: Sweep, row: Row) -> dict[str, Any]:
    """What run.json says of a trial; {} where it is missing or damaged."""
    try:
        return mapping(RunFolder(sweep.trials / row.id).info())
    except (OSError, ValueError):
        return {}


def _commands(sweep: Sweep, outcome: Outcome) -> Html:
    rows = {"this sweep": sweep.command}
    if not outcome.over:
        rows["go on"] = sweep.resume_command()
    for file, row in zip(outcome.recipes, outcome.chosen, strict=True):
        rows[f"train trial {row.number}'s recipe"] = f"gesso fit --config {shlex.quote(os.path.relpath(file))}"
    for row in outcome.chosen[:1]:
        folder = shlex.quote(os.path.relpath(sweep.trials / row.id))
        rows |= {f"{what} of it": command for what, command in origins.uses(_info(sweep, row), folder).items()}
    return definitions({what: f"<code>{escape(command)}</code>" for what, command in rows.items()})
