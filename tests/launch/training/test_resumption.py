"""All ranks go on from one checkpoint, and who was superseded takes none away."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from launch.callbacks.checkpoints import Checkpoints
from launch.checkpoints import files
from launch.runs.folder import RunFolder, Superseded
from launch.training.resumption import check_own, resume_point


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run with checkpoints at 160 and 320 images, in the second start of a SLURM job; another process owns it."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    run = RunFolder(tmp_path)
    save(run, 160)
    save(run, 320)
    (tmp_path / "run.json").write_text(json.dumps({"owner": "process 1 on node1 (aa)", "state": "running"}))
    return run


def save(run: RunFolder, images: int) -> Path:
    path = run.checkpoints / f"{images:012d}"
    path.mkdir(parents=True)
    (path / files.MARKER).touch()
    files.link(run.checkpoints / "last", path)
    return path


def test_the_other_ranks_take_the_first_ones_choice(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # A start before this one had its own.
    run.update(owner=None, resumed={"by": "12.0.0", "checkpoint": "000000000160"})
    told: list[Path | None] = []
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    other = threading.Thread(target=lambda: told.append(resume_point(run, patience=60)))
    other.start()
    other.join(0.5)
    assert other.is_alive()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert resume_point(run) == run.checkpoints / "000000000320"
    other.join(30)
    assert told == [run.checkpoints / "000000000320"]
    # A rank that comes later, when there is a newer one, takes the same.
    save(run, 480)
    monkeypatch.setattr(rank_zero_only, "rank", 2)
    assert resume_point(run) == run.checkpoints / "000000000320"


def test_ranks_agree_that_there_is_none(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (run.checkpoints / "000000000160", run.checkpoints / "000000000320"):
        files.remove(path)
    assert resume_point(run) is None
    save(run, 480)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert resume_point(run, patience=1) is None


def test_a_first_rank_that_never_comes(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(TimeoutError, match="the first rank has not said within 0 s from which checkpoint to go on"):
        resume_point(run, patience=0.2)


def test_what_was_chosen_is_not_deleted_by_the_superseded(run: RunFolder) -> None:
    """A checkpoint on its way to the disk when the run is taken over becomes neither the last one, nor removes any."""
    written = run.checkpoints / "000000000480"
    written.mkdir()
    (written / files.MARKER).touch()
    with pytest.raises(Superseded):
        Checkpoints(keep_last=1)._book(run, written, best=None)
    assert resume_point(run) == run.checkpoints / "000000000320"
    assert (run.checkpoints / "000000000160").is_dir()


def test_outside_of_slurm_nobody_is_asked(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert resume_point(run) == run.checkpoints / "000000000320"
    assert run.info()["owner"] == "process 1 on node1 (aa)"


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"), [("a1", "b2", True), ("a1", "a1", False), (None, "b2", False), ("a1", None, False)]
)
def test_a_checkpoint_of_another_run_is_refused(
    theirs: str | None, ours: str | None, refused: bool, tmp_path: Path
) -> None:
    """Of the same shapes, copied into the run's folder; runs and checkpoints of before tell no identity."""
    (tmp_path / "run.json").write_text(json.dumps({} if ours is None else {"identity": ours}))
    checkpoint = tmp_path / "checkpoints" / "000000000160"
    saved = {"run": {"name": "other-run", "identity": theirs}}
    if not refused:
        check_own(RunFolder(tmp_path), checkpoint, saved)
        return
    with pytest.raises(ValueError, match=r"000000000160: is of another run \(other-run\) than .*: move it away"):
        check_own(RunFolder(tmp_path), checkpoint, saved)
