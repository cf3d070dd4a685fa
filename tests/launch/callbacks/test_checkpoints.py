"""Which checkpoints stay, which one is the best, and a disk that is full."""

from __future__ import annotations

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


def test_some_checkpoints_stay_for_good_and_the_best_one_too(tmp_path: Path) -> None:
    class Score(L.Callback):
        """Plays the evaluation: a metric that is best at 48 images."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            trainer.callback_metrics["val/loss"] = torch.tensor(abs(pl_module.images_seen - 48.0))
            trainer.state.fn = TrainerFn.FITTING
            checkpoints.on_validation_end(trainer, pl_module)

    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, keep_every_kimg=0.05, monitor="val/loss")
    train(tmp_path, 0.128, EMA(), checkpoints, Score())
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000000000048", "000000000064", "000000000112", "000000000128", "best", "last"]
    assert (tmp_path / "checkpoints" / "best").resolve().name == "000000000048"
    assert RunFolder(tmp_path).info()["best"] == {"metric": "val/loss", "value": 0.0, "checkpoint": "000000000048"}
