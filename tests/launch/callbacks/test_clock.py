"""Intervals in images."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest

from launch.callbacks import clock as room
from launch.callbacks.clock import Clock, Every
from lightning_modules.core.optimization import OptimizerOptions
from tests.launch.callbacks.small_training import Images, small


def test_an_interval_comes_round_once_for_each_multiple() -> None:
    for batch in (1, 7, 64, 1500):
        every, due = Every(1.0), 0
        for before in range(0, 10_000 - batch, batch):
            due += every.due(before, before + batch)
        last = (10_000 - batch - 1) // batch * batch + batch
        assert due == (last // 1000 if batch <= 1000 else due)
        assert due > 0
    with pytest.raises(ValueError, match="more than 0"):
        Every(0)


def test_the_speed_is_known_before_it_is_logged() -> None:
    clock = Clock(1.0, 100.0)
    assert clock.speed(0) is None
    clock.seconds = 2.0
    assert clock.speed(64) == 32.0
    clock.images_per_second = 50.0
    assert clock.speed(64) == 50.0


def test_the_learning_rate_of_a_step_is_logged_with_its_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the step to come, which would be 0 at the end."""
    rows: list[dict[str, float]] = []
    monkeypatch.setattr(room, "record", lambda trainer, values: rows.append(values))
    monkeypatch.setattr(Clock, "write", lambda *arguments: None)
    module = small()
    module.generator_optimizer = OptimizerOptions(lr=0.3, schedule="linear")
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        default_root_dir=tmp_path,
        callbacks=[Clock(0.024, 0.008)],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, Images())
    assert [row["lr/generator"] for row in rows] == pytest.approx([0.3, 0.2, 0.1])
