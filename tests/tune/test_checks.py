"""What is wrong with a sweep is one line, before any trial starts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gesso.cli import tune as verb
from gesso.cli.main import main
from launch.evaluation import driver
from lightning_modules.metrics import evaluator
from tests.lightning_modules.metrics.test_generation import tiny_extractor
from tests.tune.lab import Lab, gesso
from tune.space import read_space
from tune.sweep import Placement


def complaint(lab: Lab, capsys: pytest.CaptureFixture[str], space: Path, *more: str) -> str:
    """What `gesso tune` says; it must not have made anything."""
    assert main([*lab.arguments(space), *more]) == 2
    assert not (lab.root / "sweeps").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("dimensions", "more", "expected"),
    [
        ({"frist": "uniform(1, 2)"}, (), "space: model.frist: uniform(1, 2) does not fit: "),
        ({"depth": "uniform(1, 5)"}, (), "space: model.depth: uniform(1, 5) does not fit: "),
        ({"depth": [1, 2.5]}, (), "space: model.depth: "),
        ({"first": "uniform(-1, 1)"}, (), "space: with model.first -1.0: Planted: first is -1.0 and second 1.0; both"),
        ({"first": "loguniform(0, 1)"}, (), "model.first: loguniform(0, 1): the lower bound must be more than 0"),
        ({"first": "loguniform(2, 1)"}, (), "less than the upper"),
        ({"first": "lognormal(2, 1)"}, (), "model.first: lognormal: no distribution; did you mean"),
        ({"first": "__import__('os').getcwd()"}, (), "write a distribution, such as loguniform(1e-4, 1)"),
        ({"first": "uniform(1, 2)"}, ("--metric=val/plantet",), "give one --mode for each metric"),
        ({"first": "uniform(1, 2)"}, ("--scheduler=asha", "--grace-kimg=0.001"), "--grace-kimg 0.001: trials can be"),
        ({"first": "uniform(1, 2)"}, ("--run.kimg=0.008",), "never comes to its first evaluation"),
        ({"first": "randn(1, 2)"}, ("--search=tpe",), "TPE takes no randn"),
        ({"kind": ["plain", "fancy"]}, ("--scheduler=pb2",), "PB2 changes ranges alone"),
        ({"first": "uniform(1, 2)"}, ("--concurrent=0",), "--concurrent 0: must be 1 or more"),
        ({"first": "uniform(1, 2)"}, ("--concurrent=-1",), "--concurrent -1: must be 1 or more"),
        ({"first": "uniform(1, 2)"}, ("--seed=-1",), "--seed -1: must be from 0 to 9223372036854775807"),
        ({"first": "uniform(1, 2)"}, ("--scheduler=asha", "--reduction=nan"), "--reduction nan: must be more than 1"),
        ({"first": "uniform(1, 2)"}, ("--gpus-per-trial=nan",), "--gpus-per-trial nan: must be 0 or more"),
        ({"first": "quniform(1, 2, 0)"}, (), "quniform(1, 2, 0): the step must be more than 0"),
        ({"depth": "qrandint(1, 2, 7)"}, (), "model.depth: qrandint(1, 2, 7): "),
        ({"depth": [1, 2, 1]}, (), "the value 1 is there twice"),
    ],
)
def test_one_line(
    lab: Lab,
    capsys: pytest.CaptureFixture[str],
    dimensions: dict[str, object],
    more: tuple[str, ...],
    expected: str,
) -> None:
    if "give one" in expected:
        more = (*more, "--mode=min")
    assert expected in complaint(lab, capsys, lab.space(**dimensions), *more)


def test_a_metric_that_is_never_logged(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for word in lab.arguments(lab.space(first="uniform(1, 2)")) if not word.startswith("--metric")]
    assert main([*arguments, "--metric=val/plantet"]) == 2
    assert "--metric val/plantet is never logged; did you mean val/planted?" in capsys.readouterr().err
    assert main([*arguments, "--metric=fid"]) == 2
    assert "this recipe measures val/planted, val/first, images_per_second" in capsys.readouterr().err


def test_a_score_that_the_weights_cannot_give(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As those of the asset `inception`, which have no classifier: every trial would fail.
    monkeypatch.setattr(driver, "fetch", lambda name: Path("nowhere"))
    monkeypatch.setattr(evaluator, "build_extractor", lambda name, file: tiny_extractor(name, num_classes=0))
    lab.recipe.write_text(lab.recipe.read_text().replace("tests.tune.planted.Planted", "VAE"))
    words = [word for word in lab.arguments(lab.space(beta=[0.5, 2])) if not word.startswith("--metric")]
    small = ("--model.channels=1", "--model.resolution=32", "--evaluation.num_samples=10")
    assert main([*words, "--metric=is", "--evaluation.metrics=[is]", *small]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the weights of inception-tf hold no classifier, which the Inception Score needs; use mobilenet_v2" in line
    assert not (lab.root / "sweeps").exists()


@pytest.mark.parametrize(
    ("values", "samples", "repeat"),
    [([1, 2], 2, None), ([1, 2], 3, 3), ("grid([1, 2])", 1, None), ("grid([1, 2])", 3, 6), ("randint(1, 3)", 9, None)],
)
def test_trials_that_repeat_others_are_said(
    lab: Lab,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    values: object,
    samples: int,
    repeat: int | None,
) -> None:
    monkeypatch.setattr(verb, "conduct", lambda *_, **__: 0)
    assert main(lab.arguments(lab.space(depth=values), "--mode=min", f"--num-samples={samples}")) == 0
    said = capsys.readouterr().err
    if repeat is None:
        assert "different trials" not in said
    else:
        assert f"the space holds 2 different trials, fewer than {repeat}: the others repeat them" in said


@pytest.mark.slow
def test_no_room_for_a_trial(lab: Lab) -> None:
    said = gesso(*lab.arguments(lab.space(first="uniform(1, 2)"), "--cpus-per-trial=1000"), code=2)
    assert "no room for a trial: it needs 1000 CPU, and there is" in said


def test_conditions(lab: Lab) -> None:
    space = read_space(
        lab.space(
            kind=["plain", "fancy"],
            second={"sample": "uniform(1, 2)", "when": {"model.kind": "fancy"}},
            depth={"sample": "randint(1, 4)", "when": {"model.second": [1.5]}, "mutate": False},
        )
    )
    drawn = {"model.kind": "plain", "model.second": 1.5, "model.depth": 2}
    # What depends on an option without effect has none either.
    assert space.active(drawn) == {"model.kind": "plain"}
    fancy = {**drawn, "model.kind": "fancy"}
    assert space.active(fancy) == fancy
    assert space["model.depth"].probes() == (1, 3)
    with pytest.raises(ValueError, match="which must be an option of the space above this one"):
        read_space(lab.space(second={"sample": "uniform(1, 2)", "when": {"model.kind": "fancy"}}))
    with pytest.raises(ValueError, match="which is never drawn"):
        read_space(lab.space(kind=["plain"], second={"sample": "uniform(1, 2)", "when": {"model.kind": "fancy"}}))


def test_bundles() -> None:
    assert Placement(ranks=2, cpus=4, gpus=1).bundles() == [{"CPU": 4, "GPU": 1}] * 2
    assert Placement(gpus=0.5).bundles() == [{"CPU": 1.0, "GPU": 0.5}]


def test_reading_a_space_draws_nothing_from_the_common_generators(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("model.first: loguniform(1, 9)\nmodel.second: quniform(0, 1, 0.25)\nmodel.third: randint(1, 9)\n")
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 - the one that Ray Tune draws from
    read_space(file)
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert random.getstate() == before[1]
