"""A run's record: whole after a power cut, and named with a remedy when it is damaged all the same."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path

import pytest

from launch.runs.folder import RunFolder, check_idle


@pytest.mark.parametrize("content", ["", '{"name": "x", "state": "runn', "[1]", "\x00" * 300])
def test_a_damaged_record_is_named_with_what_to_do(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json: .*; delete it: the run goes on") as caught:
        RunFolder(tmp_path).info()
    assert "\n" not in str(caught.value)
    (tmp_path / "run.json").unlink()
    assert RunFolder(tmp_path).info() == {}


def test_the_record_is_on_the_disk_before_it_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[Path, bool]] = []
    monkeypatch.setattr("gesso.common.files.flush", lambda path: flushed.append((path, path.exists())))
    run = RunFolder(tmp_path)
    run.update(state="running")
    ((partial, there),) = flushed
    assert there
    assert partial.name.endswith(".partial")
    assert run.info() == {"state": "running"}


def owned(tmp_path: Path, pid: int, **fields: object) -> RunFolder:
    record = {"state": "running", "owner": f"process {pid} on {platform.node()} (aa)", **fields}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return RunFolder(tmp_path)


@pytest.mark.process
def test_a_run_that_another_process_trains_is_not_gone_on_with(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        time.sleep(0.05)
        with pytest.raises(ValueError, match=rf"process {other.pid} on .* trains it at this moment: .*kill -INT"):
            check_idle(owned(tmp_path, other.pid))
        check_idle(owned(tmp_path, other.pid, state="interrupted"))
        check_idle(owned(tmp_path, other.pid, owner=f"process {other.pid} on elsewhere (aa)"))
        # The number belongs to a process that began after the record was written.
        run = owned(tmp_path, other.pid)
        os.utime(tmp_path / "run.json", (1e9, 1e9))
        check_idle(run)
    finally:
        other.kill()
        # Killed, and its parent has not asked yet.
        time.sleep(0.2)
        check_idle(owned(tmp_path, other.pid))
        other.wait()
    check_idle(owned(tmp_path, other.pid))
    check_idle(owned(tmp_path, os.getpid()))
