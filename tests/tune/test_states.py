"""What one trial takes over from another is the whole state, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ray.tune.experiment import Trial

from launch.checkpoints import layout
from launch.runs.folder import RunFolder
from launch.training.training import Training
from tests.launch.identity import assert_identical, training_state
from tune.journal import Journal, Report
from tune.kept import KeptStates
from tune.reporting import Reporting
from tune.schedule import scheduler
from tune.search import Search
from tune.sweep import Objective, Sweep
from tune.trials import Trials


def test_a_clone_is_its_parent(shards: Path, tmp_path: Path) -> None:
    """A DCGAN: two networks with an optimizer each, averages, and a place in the stream."""
    kept: list[Path] = []

    def keep(report: Report) -> None:
        kept.append(KeptStates(tmp_path / "parent").take(report.images_seen, tmp_path / f"state-{len(kept)}"))

    def train(
        name: str, state: Path | None = None, tell: Callable[[Report], None] = lambda report: None, **more: float
    ) -> Path:
        overrides = {
            **{"data.path": str(shards), "data.global_batch_size": 16, "model.generator.width": 8},
            **{"run.wandb": "disabled", "trainer.accelerator": "cpu", "trainer.precision": "32-true"},
            **{"evaluation.metrics": ["fid"], "evaluation.num_samples": 16, "evaluation.reference_samples": 32},
            **{"evaluation.every_kimg": 0.08, "checkpoints.every_kimg": 10, "checkpoints.monitor": None},
            **{"previews.every_kimg": 10, "run.kimg": 0.24},
            **{option.replace("__", "."): value for option, value in more.items()},
        }
        reporting = Reporting({}, (Objective("fid/mobilenet_v2", "min"),), states=2, tell=tell)
        training = Training("mnist-dcgan", overrides, checkpoint=state, callbacks=[reporting], folder=tmp_path / name)
        assert training.fit().state == "finished"
        return tmp_path / name

    parent = train("parent", tell=keep)
    assert KeptStates(parent).images_seen() == [160, 240]
    assert [report.images_seen for report in Journal(parent).read()] == [80, 160, 240]
    # The clone changes the learning rate, and stops where it began: all but that is what the parent was.
    clone = train("clone", kept[1], run__kimg=0.16, model__generator_optimizer__lr=0.002)
    ours, theirs = training_state(clone), _state(kept[1])
    for state in (ours, theirs):
        for optimizer in state["optimizer_states"].values():
            for group in optimizer["param_groups"]:
                del group["lr"]
        del state["hyper_parameters"]
    assert_identical(ours, theirs)
    # It was measured already; and with no change it goes on as the parent did.
    assert Journal(clone).read() == []
    twin = train("twin", kept[1])
    assert_identical(training_state(twin), training_state(parent))
    assert [report.metrics["fid/mobilenet_v2"] for report in Journal(twin).read()] == [
        Journal(parent).read()[-1].metrics["fid/mobilenet_v2"]
    ]


def _state(path: Path) -> dict:
    run = RunFolder(path.parent / f"{path.name}-run")
    run.checkpoints.mkdir(parents=True)
    shutil.copytree(path, run.checkpoints / "000000000000")
    assert layout.read(run.checkpoints / "000000000000")
    return training_state(run.path)


def test_the_median_rule_remembers(tmp_path: Path) -> None:
    """A sweep that goes on decides as it would have: what was reported before counts, and is not decided upon again."""
    (tmp_path / "space.yaml").write_text("model.first: uniform(0, 1)\n")
    objective = Objective("val/planted", "min")
    options: dict = {"scheduler": "median", "kimg": 4.0, "every_kimg": 1.0, "grace_kimg": 1.0}
    sweep = Sweep(tmp_path, "gesso tune", [objective], num_samples=5, **options)
    trials = Trials(sweep)
    values = {"001": [0.1, 0.1, 0.1], "002": [0.2, 0.2, 0.2], "003": [0.3, 0.3, 0.3], "004": [0.9, 0.25]}
    for identity, reported in values.items():
        assert trials.add({"model.first": 0.5}).id == identity
        for kimg, value in enumerate(reported, 1):
            trials.journal(identity).add(Report(1000 * kimg, {"val/planted": value}, {}))
        if identity != "004":
            trials.end(identity, "stopped")
    made = scheduler(sweep, Search(sweep))

    class Controller:
        search_alg = None

    def tell(identity: str, kimg: float, value: float) -> str:
        trial = told.setdefault(identity, Trial("trial", trial_id=identity, stub=True))
        if len(told) > len(added):
            made.on_trial_add(Controller, trial)  # type: ignore[arg-type]
            added.add(identity)
        return made.on_trial_result(Controller, trial, {"val/planted": value, "kimg": kimg})  # type: ignore[arg-type]

    told: dict[str, Trial] = {}
    added: set[str] = set()
    # Trial 4 was bad at first and is not now; 5 is worse than the median of all four.
    assert tell("004", 2, 0.15) == "CONTINUE"
    assert tell("005", 1, 0.95) == "STOP"
