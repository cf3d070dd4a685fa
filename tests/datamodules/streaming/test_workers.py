"""Results prepared ahead: in order, in memory of their own, and no worker left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, get_args

import psutil
import pytest
import torch
from torch import Tensor

from datamodules.streaming.workers import WorkerKind, prepared
from tests.waiting import wait_until

pytestmark = pytest.mark.process

SHAPE = (50, 3)
KINDS = pytest.mark.parametrize("kind", get_args(WorkerKind))


def fill(number: int, memory: Tensor) -> dict[str, int]:
    memory.fill_(number % 251)
    return {"number": number, "by": os.getpid()}


def results(
    kind: WorkerKind, workers: int = 3, make: Callable[[int, Tensor], Any] = fill, numbers: Iterator[int] | None = None
) -> Iterator[tuple[Tensor, Any]]:
    return prepared(make, count() if numbers is None else numbers, SHAPE, workers, kind)


@KINDS
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("length", [0, 1, 5, 40])
def test_every_number_once_and_in_order(kind: WorkerKind, workers: int, length: int) -> None:
    seen = [
        (answer["number"], bool((memory == answer["number"]).all()))
        for memory, answer in results(kind, workers, numbers=iter(range(length)))
    ]
    assert seen == [(number, True) for number in range(length)]


@KINDS
def test_memory_that_is_held_is_not_written_to(kind: WorkerKind) -> None:
    held = [(memory[3:].T, answer["number"]) for memory, answer in islice(results(kind), 40)]
    time.sleep(0.05)  # for what the workers are still at
    assert all(bool((memory == number).all()) for memory, number in held)


def test_processes_write_to_the_same_memory_again() -> None:
    received = results("process")
    places = {next(received)[0].data_ptr() for _ in range(60)}
    assert 1 < len(places) <= 3 * 2 + 2


def test_processes_share_the_work() -> None:
    makers = {answer["by"] for _, answer in islice(results("process"), 12)}
    assert len(makers) == 3
    assert os.getpid() not in makers


def test_workers_end_with_the_iteration() -> None:
    """Also where two take turns, and the older one, whose pipes the younger's forks hold as well, ends first."""
    for kind, number in (
        ("thread", threading.active_count),
        ("process", lambda: len(psutil.Process().children())),
    ):
        before = number()
        older, younger = results(kind), results(kind)  # type: ignore[arg-type]
        next(older), next(younger)
        assert number() == before + 6
        older.close()  # type: ignore[attr-defined]
        assert number() == before + 3
        younger.close()  # type: ignore[attr-defined]
        assert number() == before


@KINDS
def test_an_error_is_the_workers_own(kind: WorkerKind) -> None:
    def fail(number: int, memory: Tensor) -> int:
        if number == 2:
            raise FileNotFoundError(2, "nothing there", "shard")
        return number

    received = results(kind, make=fail)
    assert [next(received)[1], next(received)[1]] == [0, 1]
    with pytest.raises(FileNotFoundError, match="nothing there: 'shard'") as caught:
        next(received)
    if kind == "process":
        assert "in fail" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_sent() -> None:
    class Odd(Exception):
        pass

    def fail(number: int, memory: Tensor) -> None:
        raise Odd("of a class that only this test knows")

    with pytest.raises(RuntimeError, match="Odd: of a class that only this test knows"):
        next(results("process", make=fail))


def test_a_process_that_dies_is_an_error() -> None:
    def die(number: int, memory: Tensor) -> None:
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    before = psutil.Process().children()
    received = results("process", make=die)
    with pytest.raises(RuntimeError, match="died of SIGKILL; if memory was short, set --data.workers lower"):
        list(islice(received, 5))
    assert psutil.Process().children() == before


def test_processes_survive_what_a_job_is_told() -> None:
    received = results("process")
    workers = {answer["by"] for _, answer in islice(received, 3)}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for worker in workers:
            os.kill(worker, number)
    assert [answer["number"] for _, answer in islice(received, 20)] == list(range(3, 23))


def test_processes_end_with_their_parent() -> None:
    """Killed, with two iterations under way, it can say goodbye to nobody."""
    script = """
        import os
        from itertools import count
        from datamodules.streaming.workers import prepared
        both = [prepared(lambda number, memory: os.getpid(), count(), (9,), 2, "process") for _ in range(2)]
        print(*[next(results)[1] for results in both for _ in range(2)], flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = list(map(int, done.stdout.split()))
    assert len(set(workers)) == 4
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), "the workers' end", seconds=10)


def test_a_worker_has_one_thread() -> None:
    def threads(number: int, memory: Tensor) -> int:
        return torch.get_num_threads()

    assert next(results("process", make=threads))[1] == 1
