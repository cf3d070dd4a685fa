"""A sweep's page, of trials that trained unequally long."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tune.effects import effects
from tune.importance import importances
from tune.journal import Report
from tune.outcome import Outcome, summary
from tune.page import write_page
from tune.space import read_space
from tune.sweep import Objective, Sweep
from tune.watch import Row, State, chosen_of, ranked

FID = Objective("fid/mobilenet_v2", "min")
RECALL = Objective("recall/mobilenet_v2", "max")


def row(number: int, fids: list[float], *, state: str = "finished", weight: float = 1.0) -> Row:
    config = {"model.loss.lambda_gp": weight, "model.optimizers.generator.learning_rate": 1e-4 * number}
    reports = [
        Report(10_000 * (k + 1), {FID.metric: fid, RECALL.metric: 1 / fid}, config) for k, fid in enumerate(fids)
    ]
    return Row(number, f"{number:03d}", config, state, reports)  # type: ignore[arg-type]


#: The second ended early, at a better figure than any of the others has at its end; the last failed.
ROWS = [
    row(1, [90, 60, 50], weight=0.5),
    row(2, [30], state="stopped", weight=7.5),
    row(3, [80, 55, 40], weight=3.0),
    row(4, [70, 20], state="stopped", weight=9.0),
    row(5, [10, 10, 10], state="failed", weight=2.0),
]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    path = tmp_path / "sweep"
    path.mkdir()
    (path / "space.yaml").write_text(
        "model.loss.lambda_gp: uniform(0, 10)\nmodel.optimizers.generator.learning_rate: loguniform(1e-4, 1e-3)\n"
    )
    for number in (1, 3):
        run = path / "trials" / f"{number:03d}"
        run.mkdir(parents=True)
        (run / "report.html").touch()
        info = {
            "seconds": 100.0 * number,
            "seed": number,
            "data": [{"name": "mnist", "images": 60_000, "fingerprint": "0123456789abcdef", "size": 32, "channels": 1}],
            "versions": {"torch": "2.14.1"},
            "git": {"commit": "7694ac6f3e"},
            "host": "node7",
            "processor": "Some CPU",
        }
        (run / "run.json").write_text(json.dumps(info))
    (path / "trials" / "004").mkdir()
    (path / "trials" / "004" / "run.json").write_text("{half")
    return Sweep(path, "gesso tune", (FID,), len(ROWS), kimg=30.0, every_kimg=10.0)


def test_only_equal_budgets_are_compared() -> None:
    assert [row.number for row in chosen_of(ROWS, [FID])] == [3]
    assert [row.number for row in ranked(ROWS, FID)] == [3, 1, 4, 2]
    assert [row.number for row in chosen_of(ROWS, [FID, RECALL])] == [3]
    # Of a sweep that was stopped, those that came furthest.
    assert [row.number for row in chosen_of([ROWS[1], ROWS[3]], [FID])] == [4]


def test_trials_are_linked_timed_and_described(sweep: Sweep) -> None:
    page = write_page(sweep, Outcome(ROWS, [ROWS[2]], [sweep.path / "best.yaml"])).read_text()
    body = page[page.index("<h2>Trials</h2>") :]
    lines = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", body)
    assert lines == [
        ('<a href="trials/003/report.html">3</a> ★', "finished", "300"),
        ('<a href="trials/001/report.html">1</a>', "finished", "100"),
        ("4", "stopped", "–"),
        ("2", "stopped", "–"),
        ("5", "failed", "–"),
    ]
    assert "6 min 40 s" in page
    for fact in ("mnist, 60,000 images, 32 px, grey", "7694ac6f3e", "node7, Some CPU", "<dd>2.14.1</dd>"):
        assert fact in page
    assert "<dt>seed</dt>" not in page
    # Lines of trials that ended early are dashed; the best of those that did not is the thick one.
    titled = re.findall(r'<polyline fill="none" style="(.*?)".*?><title>trial (\d+), ', page)
    assert {number for style, number in titled if "dasharray" in style} == {"2", "4"}
    assert [number for style, number in titled if "stroke-width:2.6" in style] == ["3"]


def test_the_baseline_is_named_and_its_figure_beside_the_best(sweep: Sweep) -> None:
    known = replace(sweep, baseline=ROWS[0].config)
    page = write_page(known, Outcome(ROWS, [ROWS[2]], [sweep.path / "best.yaml"])).read_text()
    assert '<a href="trials/001/report.html">1 (baseline)</a>' in page
    assert "trial 3; the recipe&#x27;s own: 50" in page
    said = summary(known, Outcome(ROWS, [ROWS[2]], [sweep.path / "best.yaml"]))
    assert "trial 1 (baseline): fid/mobilenet_v2 50 at 30 kimg" in said
    assert "(baseline)" not in summary(sweep, Outcome(ROWS, [ROWS[2]], [sweep.path / "best.yaml"]))


def test_a_metric_that_does_not_tell_trials_apart_is_said(sweep: Sweep) -> None:
    rows = [row(1, [50, 40]), row(2, [30, 40]), row(3, [20, 40]), row(4, [40], state="stopped")]
    best = chosen_of(rows, [FID])
    said = summary(sweep, Outcome(rows, best, [sweep.path / "best.yaml"]))
    assert "2 other trials have the same fid/mobilenet_v2 as trial 1: it is named because it came first" in said
    assert "the same" not in summary(sweep, Outcome(ROWS, [ROWS[2]], [sweep.path / "best.yaml"]))


def test_trials_of_several_batch_sizes_are_compared_at_their_ends(sweep: Sweep) -> None:
    # Evaluations are after whole batches: each size has its own last one.
    rows = [row(number, [50 + number, 40 - number]) for number in range(1, 7)]
    ends = {row.number: 30.0 + 0.048 * (row.number % 2) for row in rows}
    rows = [replace(row, reports=[*row.reports[:-1], at(row, ends[row.number])]) for row in rows]
    early = row(7, [1.0], state="stopped")
    (best,) = chosen_of([*rows, early], [FID])
    assert (best.number, best.kimg) == (6, 30.0)
    assert [row.number for row in ranked([*rows, early], FID)] == [6, 5, 4, 3, 2, 1, 7]
    # One that has not come to its first evaluation at the length that all have reached has no effect to show.
    late = replace(early, number=8, id="008", state="finished", reports=[at(early, 10.048)])
    found = effects([*rows, early, late], sweep.space, [FID])
    assert {number for effect in found for number, *_ in effect.points} == {1, 2, 3, 4, 5, 6, 7}


def at(row: Row, kimg: float) -> Report:
    return replace(row.reports[-1], images_seen=round(1000 * kimg))


def test_importances_are_of_trials_of_one_length_that_did_not_fail(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("model.first: uniform(0, 1)\nmodel.second: choice([[1, 2], [3, 4]])\n")

    def trial(number: int, state: State, fids: list[float]) -> Row:
        config = {"model.first": number / 20, "model.second": [[1, 2], [3, 4]][number % 2]}
        reports = [Report(1000 * (k + 1), {FID.metric: fid}, config) for k, fid in enumerate(fids)]
        return Row(number, f"{number:03d}", config, state, reports)

    begun = {number: 50.0 + 10 * (number % 2) for number in range(16)}
    short = [trial(number, "finished", [fid]) for number, fid in begun.items()]
    # The first quarter goes on, and gets better by that alone; what failed had figures, too.
    rows = [trial(number, "finished", [fid, 5.0] if number < 4 else [fid]) for number, fid in begun.items()]
    rows += [trial(number, "failed", [1000.0]) for number in (16, 18)]
    expected = importances(short, read_space(file), FID)
    assert expected["model.second"] > 0.9
    assert importances(rows, read_space(file), FID) == expected
