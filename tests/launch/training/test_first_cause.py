"""The error that ended training is the one that is raised, whatever the clean-up says."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import SingleDeviceStrategy

from launch.training.first_cause import FirstCause, first_cause
from launch.training.fit import trying


class Untidy(SingleDeviceStrategy):
    """A strategy that cannot be torn down."""

    def teardown(self) -> None:
        raise AttributeError("'NoneType' object has no attribute 'destroy_process_group'")


class Failing(L.Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_start(self, *arguments: Any) -> None:
        raise self.error


def train(*callbacks: L.Callback, strategy: SingleDeviceStrategy) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        strategy=strategy,
        callbacks=[FirstCause(), *callbacks],
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with first_cause(trainer):
        trainer.fit(BoringModel())


def test_what_went_wrong_first_is_raised_and_the_cleanup_is_a_note() -> None:
    cause = OSError("the disk is full")
    with pytest.raises(OSError, match="the disk is full") as caught:
        train(Failing(cause), strategy=Untidy("cpu"))
    assert caught.value is cause
    (note,) = cause.__notes__
    assert note.startswith("clean-up failed, too: AttributeError: 'NoneType'")


def test_an_error_of_the_cleanup_alone_is_raised() -> None:
    with pytest.raises(AttributeError, match="destroy_process_group"):
        train(strategy=Untidy("cpu"))


def test_without_a_failing_cleanup_nothing_changes() -> None:
    cause = ValueError("a wrong value")
    with pytest.raises(ValueError, match="a wrong value") as caught:
        train(Failing(cause), strategy=SingleDeviceStrategy("cpu"))
    assert caught.value is cause
    assert not hasattr(cause, "__notes__")


def test_a_report_that_cannot_be_written_is_said_and_hides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with trying("no report"):
        raise KeyError("images")
    assert capsys.readouterr().err == "no report: KeyError('images')\n"
