"""Which of the Trainer's own limits has ended a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest

from launch.callbacks.clock import Clock
from launch.training.limits import reached
from tests.launch.callbacks.small_training import BATCH, Images, small


@pytest.mark.parametrize(
    ("options", "name", "lifted"),
    [
        ({"max_steps": 2}, "trainer.max_steps", "-1"),
        ({"max_steps": 0}, "trainer.max_steps", "-1"),
        ({"max_time": {"seconds": 0}}, "trainer.max_time", "null"),
        ({"max_epochs": 0}, "trainer.max_epochs", "-1"),
        ({"max_epochs": 1, "limit_train_batches": 1}, "trainer.max_epochs", "-1"),
        ({"limit_train_batches": 0}, "trainer.limit_train_batches", "1.0"),
        ({}, None, None),
        # Two optimizers: at its length, a training of four steps has counted eight.
        ({"max_steps": 8}, None, None),
    ],
)
def test_the_limit_that_ended_it_is_named(
    tmp_path: Path, options: dict[str, Any], name: str | None, lifted: str | None
) -> None:
    trainer = L.Trainer(
        **{"max_epochs": -1, **options},
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=[Clock(4 * BATCH / 1000, 1.0)],
    )
    trainer.fit(small(), Images())
    limit = reached(trainer)
    assert (limit and (limit.option, limit.none)) == (name and (name, lifted))
