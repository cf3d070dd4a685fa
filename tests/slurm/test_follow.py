"""The table of a cluster's runs: one damaged run does not hide the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gesso.cli.main import main
from launch.runs.folder import RunFolder
from slurm import follow, queue
from slurm.follow import log_file, show, standings

WHOLE = {"state": "interrupted", "kimg": 0.1, "total_kimg": 0.2, "restarts": 1, "error": "[Errno 28] full"}


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow.queue, "jobs", lambda ids: {number: _job(number) for number in ids if number == "7"})


def _job(number: str) -> queue.QueuedJob:
    return queue.QueuedJob(number, "RUNNING", "", "1:00:00", "node1")


def queued(root: Path, name: str, record: Any, job: int = 1) -> RunFolder:
    run = root / name
    (run / "slurm").mkdir(parents=True)
    (run / "slurm" / "jobs.txt").write_text(f"{job}\n")
    (run / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return RunFolder(run)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", r"run\.json: damaged"),
        ({**WHOLE, "total_kimg": "many"}, r"run\.json: total_kimg is 'many', no number"),
        ({**WHOLE, "restarts": [1]}, r"run\.json: restarts is \[1\], no number"),
        ({**WHOLE, "images_per_second": "fast"}, r"run\.json: images_per_second is 'fast', no number"),
    ],
)
def test_a_damaged_run_is_a_row_that_names_it(record: Any, said: str, tmp_path: Path) -> None:
    runs = [queued(tmp_path, "a", WHOLE), queued(tmp_path, "b", record, job=7), queued(tmp_path, "c", WHOLE)]
    first, damaged, last = standings(runs)
    assert (first.state, last.state, first.kimg) == ("interrupted", "interrupted", 0.1)
    assert (damaged.state, damaged.job, damaged.left) == ("damaged", "7", "1:00:00")
    with pytest.raises(ValueError, match=said):
        raise ValueError(damaged.reason)


def test_records_with_gaps_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [queued(tmp_path, "a", WHOLE), queued(tmp_path, "b", {"state": 5, "kimg": None}), queued(tmp_path, "c", {})]
    show(standings(runs))
    shown = capsys.readouterr().out
    assert "0.1/0.2" in shown
    assert "[Errno 28] full" in shown
    assert [line.split()[2] for line in shown.splitlines()[1:]] == ["interrupted", "5", "unknown"]


def test_the_job_s_log_is_found_without_its_note(tmp_path: Path) -> None:
    run = queued(tmp_path, "a", {})
    with pytest.raises(FileNotFoundError, match=r"job\.log: nothing was logged yet"):
        log_file(run, None)
    (run.path / "slurm" / "job.log").write_text("x")
    assert log_file(run, None) == run.path / "slurm" / "job.log"


@pytest.mark.slow
@pytest.mark.process
def test_a_run_whose_config_is_broken_is_not_queued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = queued(tmp_path, "a", {**WHOLE, "slurm": {"script": "x.sh", "log": "x.log", "task": None}})
    run.config.write_text("model: [\n")
    assert main(["slurm", "resume", str(run.path)]) == 2
    assert "config.yaml" in capsys.readouterr().err
    run.update(slurm=None)
    assert main(["slurm", "resume", str(run.path)]) == 2
    assert "does not say how the run was queued" in capsys.readouterr().err
    assert (run.path / "slurm" / "jobs.txt").read_text() == "1\n"
