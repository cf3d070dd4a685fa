"""Where the results of pictures and of folders go, and what they never replace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gesso.cli.translate import _goal
from launch.inference.folders import pictures_in, plan
from launch.inference.pictures import save_picture


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "a.PNG", "b.png", "._b.png", "notes.txt", "trip/b.png", "trip/day 2/c.webp", ".git/d.png"):
        file = tmp_path / "album" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "album"


def test_folders_in_folders_are_kept_apart_and_hidden_files_passed_over(album: Path) -> None:
    made = {str(source): str(target) for source, target in plan([Path("album")], "out", "stylized").jobs}
    assert made == {
        "album/a.PNG": "out/a.png",
        "album/a.jpg": "out/a.jpg.png",
        "album/b.png": "out/b.png",
        "album/trip/b.png": "out/trip/b.png",
        "album/trip/day 2/c.webp": "out/trip/day 2/c.png",
    }


def test_results_inside_the_folder_are_no_pictures_of_it(album: Path) -> None:
    (album / "made").mkdir()
    (album / "made" / "a.png").touch()
    before = pictures_in(album, without=Path("album/made"))
    assert [target for _, target in plan([Path("album")], "album/made", "stylized").jobs] != []
    assert album / "made" / "a.png" not in before


def test_results_in_other_styles_are_no_pictures_of_it_either(album: Path) -> None:
    # Of an earlier `gesso translate RUN album --styles 2 --out album/made`.
    other = album / "made" / "style-2" / "b.png"
    other.parent.mkdir(parents=True)
    other.touch()
    out, done, results = _goal("album/made", 1, 2)
    assert (out, results) == ("album/made/style-1", Path("album/made"))
    sources = [source for source, _ in plan([Path("album")], out, done, results=results).jobs]
    assert len(sources) == 5
    assert Path("album/made/style-2/b.png") not in sources


@pytest.mark.parametrize(
    ("inputs", "out"),
    [
        (["album"], "album"),
        (["album"], "album/../album"),
        (["album/b.png"], "album/b.png"),
    ],
)
def test_no_original_is_replaced(album: Path, inputs: list[str], out: str) -> None:
    with pytest.raises(ValueError, match="would be replaced by what is made of"):
        plan([Path(name) for name in inputs], out, "stylized")


def test_no_file_of_somebody_else_is_replaced(album: Path) -> None:
    (album.parent / "out").mkdir()
    (album.parent / "out" / "b.png").write_bytes(b"mine")
    for inputs, out in (("album", "out"), ("album/b.png", "out/b.png")):
        with pytest.raises(ValueError, match=r"^out/b\.png: is there already, and gesso has not made it"):
            plan([Path(inputs)], out, "stylized")
    save_picture(np.zeros((2, 2), np.uint8), album.parent / "out" / "b.png")
    assert plan([Path("album/b.png")], "out/b.png", "stylized").jobs
    with pytest.raises(ValueError, match="--out is empty"):
        plan([Path("album/b.png")], "", "stylized")


def test_an_original_is_not_replaced_through_a_link(album: Path) -> None:
    (album.parent / "link").symlink_to(album)
    with pytest.raises(ValueError, match="would be replaced"):
        plan([Path("album/b.png")], "link/b.png", "stylized")


def test_the_folder_one_is_in_has_a_name(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    assert plan([Path(".")], None, "stylized").out == album.with_name("album-stylized")
    monkeypatch.chdir(album / "trip")
    assert plan([Path("..")], None, "stylized").out == album.with_name("album-stylized")


def test_the_ending_is_known_before_anything_is_computed(album: Path) -> None:
    with pytest.raises(ValueError, match=r"^out\.heic: pictures are written as \.png, \.jpg, "):
        plan([Path("album/b.png")], "out.heic", "stylized")


def test_a_file_is_no_folder_for_results(album: Path) -> None:
    with pytest.raises(ValueError, match=r"^album/notes\.txt is a file: name a folder"):
        plan([Path("album")], "album/notes.txt", "stylized")
