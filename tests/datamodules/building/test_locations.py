"""Which tars are meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datamodules.building.locations import expand_urls

ODD = ("a{1,2}.tar", "b[1].tar", "c*.tar", "#?& $x.tar", "p%41.tar")


def names(text: str) -> list[str]:
    return [os.path.basename(path) for path in expand_urls(text)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "s-0.tar",
        "s-1.tar",
        "s-3.tar",
        "a{1,2}.tar",
        "b[1].tar",
        "c*.tar",
        "cd.tar",
        "#?& $x.tar",
        "p%41.tar",
    ):
        Path(name).write_bytes(b"")
    return tmp_path


def test_braces_and_globs(folder: Path) -> None:
    assert names("s-{0..1}.tar") == ["s-0.tar", "s-1.tar"]
    assert names("s-*.tar") == ["s-0.tar", "s-1.tar", "s-3.tar"]
    assert names(f"file:{folder}/s-{{3,0}}.tar") == ["s-3.tar", "s-0.tar"]
    assert expand_urls("http://a/{0..1}.tar?x=[1]") == ["http://a/0.tar?x=[1]", "http://a/1.tar?x=[1]"]
    assert expand_urls("pipe:cat {1..2}*") == ["pipe:cat {1..2}*"]


def test_a_file_of_just_this_name_comes_first(folder: Path) -> None:
    for name in ODD:
        assert names(name) == [name]


def test_what_is_named_and_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^s-2\.tar: no such tar; s-\{0\.\.3\}\.tar names it"):
        expand_urls("s-{0..3}.tar")
    with pytest.raises(FileNotFoundError, match=r"^x\*\.tar: no such tar"):
        expand_urls("{s,x}*.tar")
    os.mkfifo("pipe.tar")
    with pytest.raises(ValueError, match="no plain file"):
        expand_urls("pipe.*")
    os.symlink("/nowhere/x", "lost.tar")
    with pytest.raises(FileNotFoundError, match="link to nothing"):
        expand_urls("lost.tar")
