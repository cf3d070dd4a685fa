"""The result of a sweep: its best trials, their recipes, and a summary."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gesso.common.files import write_whole
from tune.sweep import Sweep
from tune.watch import Row, chosen_of, is_baseline, name_of, tied

#: Most recipes that are written of a Pareto front.
MOST = 8


@dataclass(frozen=True)
class Outcome:
    """A sweep's result.

    Args:
        rows: all trials.
        chosen: the best trial, or those on the Pareto front.
        recipes: a recipe's file for each of ``chosen``, for `gesso fit --config`.
    """

    rows: Sequence[Row]
    chosen: Sequence[Row]
    recipes: Sequence[Path]

    @property
    def over(self) -> bool:
        """Whether no trial is left to run."""
        return bool(self.rows) and all(row.state not in ("waiting", "running") for row in self.rows)


def conclude(sweep: Sweep, rows: Sequence[Row]) -> Outcome:
    """Chooses the best of a sweep's trials and writes their recipes."""
    chosen = chosen_of(rows, sweep.objectives)[:MOST]
    for old in [*sweep.path.glob("pareto-*.yaml"), *sweep.path.glob("best.yaml")]:
        old.unlink()
    several = len(sweep.objectives) > 1
    names = [f"pareto-{k}.yaml" if several else "best.yaml" for k in range(1, len(chosen) + 1)]
    recipes = [write_recipe(sweep, row, sweep.path / name) for row, name in zip(chosen, names, strict=True)]
    return Outcome(rows, chosen, recipes)


def write_recipe(sweep: Sweep, row: Row, file: Path) -> Path:
    """Writes the sweep's recipe with a trial's values to ``file``, and returns ``file``."""
    from launch.training.training import Training

    text = Training(sweep.recipe, sweep.space.active(row.config)).parse().text()
    figures = row.figures(sweep.objectives)
    write_whole(file, f"# Trial {row.number} of {sweep.path.name}: {figures} at {row.kimg:g} kimg\n{text}")
    return file


def summary(sweep: Sweep, outcome: Outcome) -> str:
    """A summary for the terminal, in a few lines."""
    lines = []
    for row, recipe in zip(outcome.chosen, outcome.recipes, strict=True):
        lines.append(f"trial {name_of(sweep, row)}: {row.figures(sweep.objectives)} at {row.kimg:g} kimg  {row.drawn}")
        lines.append(f"  gesso fit --config {os.path.relpath(recipe)}")
    if len(sweep.objectives) == 1 and outcome.chosen:
        lines += _ties(sweep, outcome.rows, outcome.chosen[0])
    for row in outcome.rows:
        if is_baseline(sweep, row) and row.reports and row not in outcome.chosen:
            figures = row.figures(sweep.objectives)
            lines.append(f"trial {name_of(sweep, row)}: {figures} at {row.kimg:g} kimg  {row.drawn}")
        if row.state in ("finished", "stopped") and not (sweep.trials / row.id).is_dir():
            what = "its results are those of results.json" if row.reports else "nothing is known of its results"
            lines.append(f"trial {name_of(sweep, row)}: its folder trials/{row.id} is gone; {what}")
    failed = [row for row in outcome.rows if row.state == "failed"]
    lines += [f"trial {row.number} failed: {row.error}" for row in failed]
    return "\n".join([*lines, f"report: {os.path.relpath(sweep.path / 'report.html')}"])


def _ties(sweep: Sweep, rows: Sequence[Row], best: Row) -> list[str]:
    """A line where other trials are as good as the best one; [] where none is."""
    (objective,) = sweep.objectives
    others = tied(rows, best, objective)
    if not others:
        return []
    count = f"{len(others)} other trial{'s have' if len(others) > 1 else ' has'}"
    same = f"{count} the same {objective.metric} as trial {name_of(sweep, best)}"
    return [f"{same}: it is named because it came first; this metric does not tell them apart"]
