"""Files are whole or absent, and errors name them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gesso.common.files import append, json_lines, partial_path, sha256, write_all_whole, write_whole, writing_whole
from launch.checkpoints.tensors import save_tensors


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.bin"
    with writing_whole(file) as partial:
        partial.write_bytes(b"half")
        assert not file.exists()
        assert partial.parent == file.parent
    assert file.read_bytes() == b"half"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "file"
    write_whole(file, "before\n")
    with pytest.raises(error), writing_whole(file) as partial:
        _write_and_raise(partial, error)
    assert file.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [file]


def _write_and_raise(partial: Path, error: type[BaseException]) -> None:
    partial.write_text("after")
    raise error


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with writing_whole(file) as one:
        one.write_text("one")
        write_whole(file, "other")
    assert file.read_text() == "one"
    assert partial_path(file) != partial_path(file)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the umask cannot be asked for")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_whoever_may_read_a_new_file_may_read_a_libraries(tmp_path: Path, umask: int) -> None:
    """safetensors' files are their owner's alone."""
    before = os.umask(umask)
    try:
        with writing_whole(tmp_path / "library") as partial:
            save_file({"weight": torch.ones(2)}, partial)
        save_tensors({"weight": torch.ones(2)}, tmp_path / "tensors")
        write_whole(tmp_path / "text", "any other")
        with writing_whole(tmp_path / "program") as partial:
            partial.write_text("#!/bin/sh\n")
            partial.chmod(0o755)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    usual = 0o666 & ~umask
    assert modes == {"library": usual, "tensors": usual, "text": usual, "program": 0o755 | usual}


def test_an_error_names_the_file_and_keeps_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"file: cannot be written \(No space left on device\)") as caught:
        write_whole(file, b"data")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_several_files_come_together_or_not_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "first", tmp_path / "second"
    write_all_whole({first: "1", second: "2"})
    assert (first.read_text(), second.read_text()) == ("1", "2")
    second.unlink()
    second.mkdir()
    with pytest.raises(OSError, match="second: cannot be written"):
        write_all_whole({first: "3", second: "4"})
    assert first.read_text() == "1"
    assert [*first.parent.iterdir(), *second.iterdir()] == [first]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 5000)
    assert sha256(tmp_path / "file") == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "missing" / "second"
    first.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_all_whole({first: "new", second: "\udc80"})
    assert first.read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["first"]


def test_what_is_appended_after_half_a_line_is_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log"
    append(file, "one\n")
    append(file, "two\nthree\n")
    assert file.read_text() == "one\ntwo\nthree\n"
    file.write_text("one\ntw")
    append(file, "three é\n")
    assert file.read_text(encoding="utf-8") == "one\ntw\nthree é\n"
    with pytest.raises(OSError, match="cannot be written"):
        append(tmp_path, "x\n")


@pytest.mark.parametrize("torn", ['{"a": 2', "{", "nu", "[1]\n", '"a"\n', "\udcff\n", "\n"])
def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "log.jsonl"
    assert json_lines(file) == []
    append(file, '{"a": 1}\n')
    with file.open("a", errors="surrogateescape") as stream:
        stream.write(torn)
    append(file, '{"a": 3}\n')
    assert json_lines(file) == [{"a": 1}, {"a": 3}]
