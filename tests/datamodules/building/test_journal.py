"""A build that is interrupted, struck down or out of disk goes on, and ends with the same bytes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.manifest import MANIFEST_NAME
from gesso.cli.main import main
from tests.datamodules.building.made import contents, photographs, picture, pixels, samples
from tests.waiting import wait_until


class Interrupted:
    """`gesso shards build` in a process of its own, to be struck down."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "gesso.cli.main", "shards", "build", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def strike(self, when: Path, blow: signal.Signals) -> str:
        """Strikes the whole process group as soon as ``when`` exists; returns what it said."""

        def there() -> bool:
            assert self.process.poll() is None, self.process.communicate()[1]
            return when.exists()

        wait_until(there, str(when), every=0.001)
        os.killpg(self.process.pid, blow)
        return self.process.communicate()[1]


@pytest.mark.process
@pytest.mark.parametrize("workers", ["1", "3"])
def test_struck_down_thrice_it_ends_with_the_same_bytes(workers: str, tmp_path: Path) -> None:
    root = photographs(tmp_path / "in", 240, 96, 96)
    options = ["--size", "64", "--samples-per-shard", "20", "--format", "png"]
    reference, out = tmp_path / "reference", tmp_path / "out"
    assert main(["shards", "build", str(root), str(reference), *options, "--workers", "1"]) == 0
    command = (str(root), str(out), *options, "--workers", workers)
    Interrupted(*command).strike(out / ".build" / "journal.sqlite", signal.SIGKILL)
    said = Interrupted(*command).strike(out / "train-00001.tar", signal.SIGINT)
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not list(out.glob("*.partial"))
    assert not (out / MANIFEST_NAME).exists()
    first = (out / "train-00000.tar").stat().st_ino
    said = Interrupted(*command).strike(out / "train-00005.tar", signal.SIGKILL)
    assert "going on" in said
    assert not (out / MANIFEST_NAME).exists()
    assert main(["shards", "build", *command]) == 0
    assert contents(out) == contents(reference)
    assert (out / "train-00000.tar").stat().st_ino == first  # not written again


@pytest.mark.process
def test_a_change_of_options_or_source_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "in", 60)
    out = tmp_path / "out"
    command = ["shards", "build", str(root), str(out), "--samples-per-shard", "10", "--workers", "1"]
    Interrupted(*command[2:], "--size", "24").strike(out / "train-00000.tar", signal.SIGKILL)
    picture().save(root / "a" / "0000.png")
    assert main([*command, "--size", "16", "--format", "png", "--no-classes"]) == 0
    assert "starting anew" in capsys.readouterr().err
    assert {pixels(sample["png"]).shape for sample in samples(out)} == {(16, 16, 3)}

    assert main([*command, "--size", "16", "--format", "png", "--no-classes"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    before = contents(out)
    assert main([*command, "--size", "24"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*command, "--size", "24", "--overwrite"]) == 0
    assert {pixels(sample["jpg"]).shape for sample in samples(out)} == {(24, 24, 3)}


def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second shard goes to a device that is always full: one line, the first shard stays, nothing half-made."""
    root = photographs(tmp_path / "in", 60)
    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    (out / "train-00001.tar.partial").symlink_to("/dev/full")
    command = ["shards", "build", str(root), str(out), "--samples-per-shard", "20", "--splits", "100", "--workers", "1"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "disk is full" in said
    assert str(out) in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == [".build", "train-00000.tar"]
    assert main(command) == 0
    assert main(["shards", "build", str(root), str(tmp_path / "reference"), *command[4:]]) == 0
    assert contents(out) == contents(tmp_path / "reference")


def test_a_limit_on_the_size_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photographs(tmp_path / "in", 60, 64, 64)
    command = ["shards", "build", str(root), str(tmp_path / "out"), "--splits", "100", "--format", "png"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        assert main([*command, "--workers", "1"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gesso: {tmp_path / 'out'}: a file grows larger than it may (see `ulimit -f`); finished")
    assert main([*command, "--workers", "1"]) == 0


def test_a_second_build_waits_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    (out / ".build").mkdir(parents=True)
    command = ["shards", "build", str(photographs(tmp_path / "in", 4)), str(out), "--splits", "100", "--workers", "1"]
    with FileLock(out / ".build" / "lock"):
        assert main(command) == 2
    assert "another build" in capsys.readouterr().err
    assert main(command) == 0
