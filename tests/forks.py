"""Processes that need not import anything slow: forks of one that did so once, for all tests of this process.

The process that forks, this module run as a program, is started at first use. It reads its orders from stdin, a JSON
object a line, and ends, with all of its forks, when there are no more.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Of every fork. One thread: ranks on two cores would otherwise wait for each other's threads.
VARIABLES = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0"}


class Fork:
    """A process that runs a module's ``main()`` as ``python -m`` would.

    Args:
        module: its name.
        arguments: of the command line.
        log: where what it prints goes.
        environment: variables on top of this process's.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        variables = {**os.environ, **VARIABLES, **(environment or {})}
        order = {"module": module, "arguments": arguments, "environment": variables, "log": str(log), "at": os.getcwd()}
        self.pid: int = _ask(order)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.02)
        return code

    def kill(self) -> None:
        # Its number is its own until it is waited for, even if it has ended.
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@functools.cache
def _forker() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        env={**os.environ, **VARIABLES},
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(order: dict[str, Any]) -> Any:
    forker = _forker()
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(json.dumps(order) + "\n")
    forker.stdin.flush()
    return json.loads(forker.stdout.readline())


# ---- the process that forks -----------------------------------------------------------------------------------------


def main() -> None:
    began_with = set(os.environ)
    with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints while it is imported
        # The first compiles for seconds when an engine first asks for it.
        for module in ("deepspeed.runtime.zero.muon.muon_optimizer", "wandb", "launch.training.fit", "tune.drive"):
            importlib.import_module(module)
    # Else each fork's collector would look at all that was imported, and copy it.
    gc.freeze()
    running: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            process, status = os.waitpid(order["poll"], os.WNOHANG)
            running.discard(process)
            print(json.dumps(os.waitstatus_to_exitcode(status) if process else None), flush=True)
        elif process := os.fork():
            running.add(process)
            print(process, flush=True)
        else:
            for name in began_with - order["environment"].keys():
                os.environ.pop(name, None)
            carry_out(**order)
    for process in running:
        os.kill(process, signal.SIGKILL)


def carry_out(module: str, arguments: list[str], environment: dict[str, str], log: str, at: str) -> None:
    os.chdir(at)
    os.environ.update(environment)
    with open(os.devnull) as nothing, open(log, "w") as printed:
        for ours, theirs in ((0, nothing), (1, printed), (2, printed)):
            os.dup2(theirs.fileno(), ours)
    sys.argv = [module, *arguments]
    sys.exit(importlib.import_module(module).main())


if __name__ == "__main__":
    main()
