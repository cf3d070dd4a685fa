"""Every metric of the table, asked for by its short name, goes its own way: monitor, sweep, report, ``evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gesso.cli import evaluate
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.evaluation import Evaluation
from launch.report.record import Record
from lightning_modules.metrics import specs
from tune import checks

#: As the papers have it, written down by hand: what gets better by growing.
MORE = {
    "is",
    "precision",
    "recall",
    "density",
    "coverage",
    "ssim",
    "psnr",
    "content_cosine",
    "truth_ssim",
    "truth_psnr",
    "precision_k3",
    "recall_k3",
    "eqt",
    "eqr",
    "mig",
    "retrieval",
    "retrieval_mrr",
    "neighbours",
}
QUANTITIES = [(spec, quantity.name) for spec in specs.OWN for quantity in spec.quantities if quantity.direction]


@pytest.mark.parametrize(("spec", "name"), QUANTITIES, ids=[name for _, name in QUANTITIES])
def test_a_metric_goes_its_own_way(spec: specs.MetricSpec, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "max" if name in MORE else "min"
    full = spec.full_name(name, "mobilenet_v2")
    logged = spec.names("mobilenet_v2")

    evaluation = Evaluation()
    monkeypatch.setattr(evaluation, "names", lambda module: logged)
    callback = Checkpoints(monitor=name)
    module: Any = None
    trainer: Any = SimpleNamespace(callbacks=[evaluation])
    callback.find_monitor(trainer, module)
    assert (callback.monitor, callback.direction) == (full, expected)

    monkeypatch.setattr(checks, "measured", lambda cli: logged)
    cli: Any = None
    (objective,) = checks.find_objectives([name], [None], cli)
    assert (objective.metric, objective.mode) == (full, expected)
    other: Any = "min" if expected == "max" else "max"
    with pytest.raises(ValueError, match="leave --mode out"):
        checks.find_objectives([name], [other], cli)

    record = Record(Path("run"), {}, "", {full: [(1.0, 0.5)]}, {}, [], False)
    (metric,) = record.metrics()
    assert (metric.quantity.name, metric.quantity.direction) == (name, expected)


def test_a_style_runs_record_has_its_metrics() -> None:
    series = {name: [(1.0, 0.5)] for name in ("ssim", "gram_distance", "lpips/vgg16", "loss/style", "val/style")}
    record = Record(Path("run"), {}, "", series, {}, [], False)
    assert [metric.quantity.name for metric in record.metrics()] == ["lpips", "ssim", "gram_distance"]


def test_evaluate_offers_every_metric() -> None:
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    for spec in specs.OWN:
        assert parser.parse_args(["evaluate", "RUN", "--metrics", spec.name]).metrics == [spec.name]
