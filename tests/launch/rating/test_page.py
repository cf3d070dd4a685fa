"""`gesso rate make`: what the page shows and hides, and what is no picture."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch.rating
from gesso.cli.main import explain
from launch.rating.files import read_key
from tests.launch.rating.gallery import MAKE, METHODS, STEMS, data_of, gesso

SCRIPT = Path(launch.rating.__file__).with_name("page.js")


def jpeg(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def distance(shown: Image.Image, file: Path) -> float:
    original = Image.open(file).convert("RGB").resize(shown.size, Image.Resampling.LANCZOS)
    return float(np.abs(np.asarray(shown, float) - np.asarray(original, float)).mean())


def test_each_id_shows_what_the_key_says(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gesso(*MAKE, "--style", "painting.png", "--size", "64") == 0
    assert "rate.html: 6 to rate (3 pictures x 2 methods)" in capsys.readouterr().out
    data, key = data_of("rate.html"), read_key(Path("rate.key.json"))
    assert data["page"] == key.page
    assert sorted((item.method, item.picture.split()[0]) for item in key.items.values()) == [
        (method, stem) for method in METHODS for stem in STEMS
    ]
    assert len(data["pictures"]) == 3 + 6 + 1
    for entry in data["items"]:
        item = key.items[entry["id"]]
        stem = item.picture.split()[0]
        for role, file in (
            ("content", f"photos/{stem}.jpg"),
            ("style", "painting.png"),
            ("result", f"{item.method}/{stem}.png"),
        ):
            shown = jpeg(data["pictures"][entry[role]])
            assert shown.size == (64, 64)
            assert min(gallery.rglob("*.[jp][pn]g"), key=lambda other: distance(shown, other)) == gallery / file


def test_the_page_gives_no_method_away(gallery: Path) -> None:
    assert gesso(*MAKE, "--question", "content") == 0
    page, key = Path("rate.html").read_text(), read_key(Path("rate.key.json"))
    for word in (*METHODS, *STEMS, *(f"{item.picture}" for item in key.items.values())):
        assert word not in page
    entries = data_of("rate.html")["items"]
    assert all(set(entry) == {"id", "content", "style", "result"} for entry in entries)
    ids = [entry["id"] for entry in entries]
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in ids)
    assert ids == sorted(ids)
    # Pictures are numbered as they are first shown, not method by method.
    numbers = [entry[role] for entry in entries for role in ("content", "result")]
    assert list(dict.fromkeys(numbers)) == list(range(3 + 6))


def test_the_page_needs_nothing_else(gallery: Path) -> None:
    assert gesso(*MAKE, "--question", 'Is <b>this</b> "art"? </script><script>alert(1)</script> {{data}}') == 0
    page = Path("rate.html").read_text()
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"base64,[\w+/=]+", "", page.replace("// ", "")))
    assert page.count("<script") == page.count("</script>") == 2
    assert '<h1 id="question">Is &lt;b&gt;this' in page
    assert "default-src 'none'" in page
    assert data_of("rate.html")["question"].endswith("{{data}}")
    # What the script looks for is there.
    ids = set(re.findall(r'id="([\w-]+)"', page))
    wanted = set(re.findall(r'part\("([\w-]+)"\)', SCRIPT.read_text()))
    assert {"progress", "save", "data"} <= wanted <= ids
    assert {f"score-{score}" for score in range(1, 6)} <= ids


def test_made_again_it_is_the_same(gallery: Path) -> None:
    command = (*MAKE, "--num", "2", "--seed", "5")
    assert gesso(*command) == 0
    before = Path("rate.html").read_text(), Path("rate.key.json").read_text()
    assert len(data_of("rate.html")["items"]) == 4
    assert gesso(*command) == 0
    assert (Path("rate.html").read_text(), Path("rate.key.json").read_text()) == before
    with pytest.raises(ValueError, match="the key of another page"):
        gesso(*command, "--question", "style")
    assert (Path("rate.html").read_text(), Path("rate.key.json").read_text()) == before
    drawn = set()
    for seed in range(12):
        assert gesso(*MAKE[:-1], f"{seed}.html", "--num", "1", "--seed", str(seed)) == 0
        drawn |= {item.picture for item in read_key(Path(f"{seed}.key.json")).items.values()}
    assert len(drawn) == 3


def test_a_style_for_each_picture_and_a_picture_that_one_method_lacks(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(METHODS[0], f"{STEMS[1]}.png").unlink()
    Path(METHODS[0], "notes.txt").write_text("no picture, and not taken for one")
    assert gesso(*MAKE, "--style", METHODS[1]) == 0
    assert f"{METHODS[0]} lacks 1 pictures ({STEMS[1]}): left out for every method" in capsys.readouterr().err
    data = data_of("rate.html")
    assert len({entry["style"] for entry in data["items"]}) == 2
    assert len(data["items"]) == 4


BAD_MAKE = {
    "no such content": ({1: "nowhere"}, "nowhere: no such folder"),
    "no such method": ({2: "a=nowhere"}, "nowhere: no such folder"),
    "no such style": ({6: "--style", 7: "nowhere.png"}, "nowhere.png: no such picture"),
    "no folder": ({2: "adain"}, "adain: must be METHOD=FOLDER"),
    "no method": ({2: "=photos"}, "=photos: must be METHOD=FOLDER"),
    "one method twice": ({2: f"{METHODS[1]}=photos"}, f"{METHODS[1]} is named twice"),
    "nothing in common": ({2: "a=others"}, "others: no picture of a has the name of one in photos"),
    "empty folder": ({2: "a=empty"}, "empty: no picture here"),
    "one name twice": ({2: "a=twins"}, "twin.png: there is a twin.jpg as well"),
    "text": ({2: "a=text"}, f"text/{STEMS[0]}.png: not a picture that can be read"),
    "truncated": ({1: "broken"}, f"broken/{STEMS[0]}.jpg: not a picture that can be read (truncated"),
    "style is text": ({6: "--style", 7: f"text/{STEMS[0]}.png"}, "not a picture that can be read"),
    "no style for one": ({6: "--style", 7: "text"}, f"text: no style picture with the name {STEMS[1]}"),
    "too many": ({6: "--num", 7: "4"}, "--num 4: there are 3"),
    "none": ({6: "--num", 7: "0"}, "--num and --size must be 1 or more"),
    "no question": ({6: "--question", 7: " "}, "--question"),
    "out is a folder": ({5: "empty"}, "empty: cannot be written"),
    "out in a file": ({5: "painting.png/rate.html"}, "cannot be written"),
    "another file in the key's place": ({5: "taken.html"}, "taken.key.json: not JSON"),
}


@pytest.mark.parametrize("name", BAD_MAKE)
def test_bad_input_ends_in_one_line_and_writes_nothing(name: str, gallery: Path) -> None:
    changes, says = BAD_MAKE[name]
    for folder in ("empty", "others", "twins", "text", "broken"):
        Path(folder).mkdir()
    for file in ("others/other.png", "twins/twin.png", "twins/twin.jpg"):
        Image.open("painting.png").save(file)
    Path("text", f"{STEMS[0]}.png").write_text("not a picture at all")
    Path("broken", f"{STEMS[0]}.jpg").write_bytes(Path("photos", f"{STEMS[0]}.jpg").read_bytes()[:700])
    Path("taken.key.json").write_text("something else")
    arguments = dict(enumerate(MAKE)) | changes
    before = {path: path.is_file() and path.read_bytes() for path in gallery.rglob("*")}
    with pytest.raises((ValueError, OSError)) as caught:
        gesso(*(arguments[number] for number in sorted(arguments)))
    assert says in explain(caught.value)
    assert {path: path.is_file() and path.read_bytes() for path in gallery.rglob("*")} == before
