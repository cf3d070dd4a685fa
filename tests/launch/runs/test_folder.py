"""A run's record: whole after a power cut, and named with a remedy when it is damaged all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.runs.folder import RunFolder


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
