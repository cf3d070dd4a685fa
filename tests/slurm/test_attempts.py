"""Whether a job starts again, from how its attempts have ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.runs.folder import RunFolder, Superseded
from slurm.attempts import LIMIT, Attempt, attempts, decide, note_job, record_attempt, settle, submitted


def attempt(exit_code: int, checkpoint: str = "") -> Attempt:
    return Attempt("7", 0, exit_code, checkpoint, 0.0, "requeue", "")


@pytest.mark.parametrize("exit_code", [75, 138])
def test_an_interrupted_run_comes_back_for_ever(exit_code: int) -> None:
    before = [attempt(exit_code)] * 50
    assert decide(before, exit_code, "", chained=False) == ("requeue", "interrupted")


def test_a_finished_run_stays_finished() -> None:
    assert decide([attempt(1)], 0, "000000003200", chained=False) == ("stop", "finished")


def test_failures_without_a_new_checkpoint_end_it() -> None:
    before: list[Attempt] = []
    decisions = []
    for _ in range(LIMIT):
        decisions.append(decide(before, 1, "000000000800", chained=False)[0])
        before.append(attempt(1, "000000000800"))
    assert decisions == ["requeue"] * (LIMIT - 1) + ["stop"]


def test_progress_forgives_failures() -> None:
    before = [attempt(1, "000000000800")] * (LIMIT - 1)
    assert decide(before, 137, "000000001600", chained=False)[0] == "requeue"


def test_an_interruption_between_failures_forgives_nothing() -> None:
    before = [attempt(1, "000000000800"), attempt(75, "000000000800"), attempt(1, "000000000800")]
    assert decide(before, 1, "000000000800", chained=False)[0] == "stop"


def test_a_person_who_resumes_it_starts_the_count_again() -> None:
    before = [attempt(1)] * LIMIT + [attempt(0)]
    assert decide(before, 1, "", chained=False)[0] == "requeue"


def test_in_a_chain_the_next_job_goes_on() -> None:
    assert decide([], 75, "", chained=True)[0] == "pass"
    assert decide([attempt(1)] * LIMIT, 1, "", chained=True)[0] == "stop"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    folder = RunFolder(tmp_path / "run")
    (folder.path / "slurm").mkdir(parents=True)
    return folder


def test_a_failure_is_booked_with_what_the_ranks_said_last(run: RunFolder) -> None:
    (run.path / "logs").mkdir()
    (run.path / "logs" / "rank0.log").write_text("1.0/3.2 kimg\n")
    (run.path / "logs" / "rank10.log").write_text("gesso: a consequence\n")
    (run.path / "logs" / "rank2.log").write_text(
        "gesso: the discriminator's gradient is not finite\nslurmstepd: error\n"
    )
    assert settle(run, 137) == "requeue"
    assert run.info()["state"] == "failed"
    assert run.info()["error"] == "failed: the discriminator's gradient is not finite"
    (booked,) = attempts(run)
    assert (booked.job, booked.exit_code, booked.checkpoint) == ("12", 137, "")


def test_ranks_that_srun_ended_while_they_left_have_not_failed(run: RunFolder) -> None:
    run.update(state="interrupted", slurm_attempt="12.0")
    assert settle(run, 143) == "requeue"
    assert not attempts(run)[0].failed
    assert run.info()["state"] == "interrupted"


def test_what_a_limit_of_the_trainer_ended_is_not_queued_again_and_has_not_finished(run: RunFolder) -> None:
    run.update(state="interrupted", slurm_attempt="12.0", ended_by="trainer.max_time")
    assert settle(run, 0) == "stop"
    assert attempts(run)[0].reason == "ended by trainer.max_time"
    assert run.info()["state"] == "interrupted"


@pytest.mark.parametrize("torn", ['{"job": "12", "restart": 0, "exit_co', "{", "nul"])
def test_half_a_line_of_a_killed_attempt_hinders_none(run: RunFolder, torn: str) -> None:
    (run.path / "slurm" / "attempts.jsonl").write_text(torn)
    (run.path / "slurm" / "jobs.txt").write_text("1\n2")
    note_job(run, "12")
    assert submitted(run) == ["1", "2", "12"]
    assert [settle(run, 75) for _ in range(2)] == ["requeue", "requeue"]
    assert [booked.exit_code for booked in attempts(run)] == [75, 75]


def test_an_attempt_that_never_began_has_failed(run: RunFolder) -> None:
    # The word of the attempt before this one.
    run.update(state="interrupted", slurm_attempt="11.4")
    assert [settle(run, 143) for _ in range(LIMIT)] == ["requeue"] * (LIMIT - 1) + ["stop"]


def test_the_last_job_of_a_chain_requeues_itself(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    note_job(run, "12")
    note_job(run, "13")
    assert settle(run, 75) == "pass"
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert settle(run, 75) == "requeue"


def test_a_torn_line_is_no_attempt(run: RunFolder) -> None:
    record_attempt(run, attempt(1))
    with (run.path / "slurm" / "attempts.jsonl").open("a") as stream:
        stream.write('{"job": "12", "exi')
    assert len(attempts(run)) == 1


def test_a_process_that_was_superseded_writes_nothing(run: RunFolder) -> None:
    run.update(state="running")
    file = run.path / "run.json"
    file.write_text(json.dumps({"owner": "process 1 on node2 (aa)", "state": "running"}))
    with pytest.raises(Superseded, match=r"process 1 on node2 \(aa\) has taken this run over"):
        run.update(state="failed")
    assert run.info()["state"] == "running"
