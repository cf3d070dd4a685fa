"""Signals set a flag; Ctrl-C interrupts where nobody looks at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.training.signals import act_on_ctrl_c, agreed, listening
from tests.waiting import handles, wait_until

ALONE = SimpleNamespace(world_size=1)


def test_warnings_are_noted_however_often_they_come() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening():
        assert agreed(ALONE) == 0
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert agreed(ALONE) == number
    assert signal.getsignal(signal.SIGTERM) is before
    with listening():
        assert agreed(ALONE) == 0


def test_ctrl_c_waits_for_the_step_only_where_there_are_steps() -> None:
    with listening():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        act_on_ctrl_c(True)
        os.kill(os.getpid(), signal.SIGINT)
        assert agreed(ALONE) == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_listening_twice_is_listening_once() -> None:
    with listening():
        with listening():
            os.kill(os.getpid(), signal.SIGUSR1)
        # What was heard inside is not forgotten.
        assert agreed(ALONE) == signal.SIGUSR1


def test_other_threads_may_train() -> None:
    def train() -> None:
        with listening():
            heard.append(agreed(ALONE))

    heard: list[int] = []
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert heard == [0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_while_torch_is_loaded_ends_training_before_its_first_step(
    number: signal.Signals, shards: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "gesso.cli.main", "fit", "--config=mnist-dcgan", f"--data.path={shards}"]
    command += [f"--run.root={tmp_path}", "--run.wandb=disabled", "--evaluation.metrics=[]"]
    command += ["--checkpoints.monitor=null", "--trainer.accelerator=cpu", "--data.global_batch_size=16"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    # It listens as soon as its interpreter has started, long before torch has.
    wait_until(lambda: handles(process.pid, number), "that the command line listens")
    assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert "interrupted at 0.0 kimg" in said
    (run,) = tmp_path.iterdir()
    assert not any((run / "checkpoints").iterdir())
