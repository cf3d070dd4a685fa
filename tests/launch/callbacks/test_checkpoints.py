"""Which checkpoints stay, which one is the best, and a disk that is full."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from safetensors import SafetensorError

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.ema import EMA
from launch.checkpoints import layout, tensors
from launch.inference.loading import load_family
from launch.runs.folder import RunFolder
from launch.runs.metrics import Row, add_rows, cut_rows
from lightning_modules.core.averages import live_state
from tests.launch.callbacks.small_training import train

pytestmark = pytest.mark.slow


def test_the_last_checkpoints_stay_and_the_average_is_what_loads(tmp_path: Path) -> None:
    trainer = train(tmp_path, 0.1, EMA(half_life_kimg=0.05), Checkpoints(every_kimg=0.02, keep_last=2))
    average = trainer.lightning_module.averages["ema"].values  # type: ignore[union-attr]
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000000000080", "000000000104", "last"]
    assert (tmp_path / "checkpoints" / "last").resolve().name == "000000000104"
    last = tmp_path / "checkpoints" / "last"
    module, origin = load_family(last)
    assert (origin["images_seen"], origin["average"]) == (104, True)
    assert all(torch.equal(tensor, average[name]) for name, tensor in live_state(module, ["generator"]).items())
    raw, _ = load_family(last, average=False)
    assert any(not torch.equal(tensor, average[name]) for name, tensor in live_state(raw, ["generator"]).items())


def test_a_full_disk_costs_nothing_that_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 0.04, EMA(), Checkpoints())
    saved = tmp_path / "checkpoints" / "last"
    before = layout.read(saved)

    def full(content: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match=r"could not save .*No space left on device.*earlier checkpoints are untouched"):
        train(tmp_path, 0.08, EMA(), Checkpoints(), checkpoint=saved)
    assert layout.read(saved)["gesso"] == before["gesso"]
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


class Move(L.Callback):
    """Renames the run's folder while training goes on, as somebody may who tidies up."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        run = Path(trainer.default_root_dir)
        if pl_module.images_seen == 48:
            # What is being written at this moment would fail, and say so.
            self.checkpoints.save_and_wait(trainer)
            run.rename(run.with_name("moved"))


def test_a_folder_that_was_moved_is_said_and_what_follows_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("model: {}\n")
    run.update(family="DCGAN", wandb_id="k3j9x2ab")
    checkpoints = Checkpoints(every_kimg=0.02)
    train(run.path, 0.08, EMA(), checkpoints, Move(checkpoints))
    assert capsys.readouterr().err.count("run: was moved or removed since training began") == 1
    assert run.config.read_text() == "model: {}\n"
    assert (run.info()["family"], run.info()["wandb_id"]) == ("DCGAN", "k3j9x2ab")
    assert layout.read(run.checkpoints / "last")["run"]["config"] == "model: {}\n"
    assert layout.read(tmp_path / "moved" / "checkpoints" / "last")["run"]["config"] == "model: {}\n"


class Score(L.Callback):
    """Plays the evaluation: a metric that is best, 0, at ``best`` images."""

    def __init__(self, checkpoints: Checkpoints, best: float) -> None:
        self.checkpoints, self.best = checkpoints, best

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        value = abs(pl_module.images_seen - self.best)
        trainer.callback_metrics["val/loss"] = torch.tensor(value)
        add_rows(Path(trainer.default_root_dir) / "metrics.csv", [Row(pl_module.images_seen, 0.0, "val/loss", value)])
        trainer.state.fn = TrainerFn.FITTING
        self.checkpoints.on_validation_end(trainer, pl_module)


def test_some_checkpoints_stay_for_good_and_the_best_one_too(tmp_path: Path) -> None:
    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, keep_every_kimg=0.05, monitor="val/loss")
    train(tmp_path, 0.128, EMA(), checkpoints, Score(checkpoints, 48.0))
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000000000048", "000000000064", "000000000112", "000000000128", "best", "last"]
    assert (tmp_path / "checkpoints" / "best").resolve().name == "000000000048"
    assert RunFolder(tmp_path).info()["best"] == {"metric": "val/loss", "value": 0.0, "checkpoint": "000000000048"}


@pytest.mark.parametrize(("again", "best"), [("000000000064", "000000000048"), ("000000000032", "000000000032")])
def test_a_best_of_what_never_happened_is_forgotten(again: str, best: str, tmp_path: Path) -> None:
    def saving() -> Checkpoints:
        return Checkpoints(every_kimg=0.016, keep_last=20, monitor="val/loss")

    checkpoints = saving()
    train(tmp_path, 0.08, EMA(), checkpoints, Score(checkpoints, 48.0))
    folder = tmp_path / "checkpoints"
    for path in folder.glob("0*"):
        if path.name > again:
            shutil.rmtree(path)
    # As training cuts them when it goes on.
    cut_rows(tmp_path / "metrics.csv", int(again), None)
    checkpoints = saving()
    train(tmp_path, 0.08, EMA(), checkpoints, Score(checkpoints, 1000.0), checkpoint=folder / again)
    # What came since is worse: 920 or more.
    value = abs(int(best) - 48.0)
    assert RunFolder(tmp_path).info()["best"] == {"metric": "val/loss", "value": value, "checkpoint": best}
    assert (folder / "best").resolve().name == best


def test_where_no_measured_checkpoint_is_left_the_next_one_is_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, monitor="val/loss")
    train(tmp_path, 0.048, EMA(), checkpoints, Score(checkpoints, 48.0))
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "000000000048", tmp_path / "kept")
    shutil.rmtree(folder / "000000000048")
    (tmp_path / "metrics.csv").unlink()
    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, monitor="val/loss")
    train(tmp_path, 0.064, EMA(), checkpoints, Score(checkpoints, 1000.0), checkpoint=tmp_path / "kept")
    assert RunFolder(tmp_path).info()["best"] == {"metric": "val/loss", "value": 936.0, "checkpoint": "000000000064"}
    assert (folder / "best").resolve().name == "000000000064"


class Due(L.Callback):
    """Plays a resumed run's evaluation that was broken off before: it is done again before Lightning's ``Checkpoint``s.

    See ``Evaluation.on_train_start``.
    """

    def __init__(self, checkpoints: Checkpoints, value: float) -> None:
        self.checkpoints, self.value = checkpoints, value

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.callback_metrics["val/loss"] = torch.tensor(self.value)
        self.checkpoints.on_validation_end(trainer, pl_module)


@pytest.mark.parametrize(("value", "best"), [(7.0, "000000000048"), (-1.0, "000000000080")])
def test_an_evaluation_that_is_done_again_before_training_goes_on_knows_the_best(
    value: float, best: str, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, monitor="val/loss")
    train(tmp_path, 0.08, EMA(), checkpoints, Score(checkpoints, 48.0))
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, monitor="val/loss")
    train(tmp_path, 0.08, EMA(), checkpoints, Due(checkpoints, value), checkpoint=folder / "last")
    assert RunFolder(tmp_path).info()["best"] == {"metric": "val/loss", "value": min(value, 0.0), "checkpoint": best}
    assert (folder / "best").resolve().name == best
