"""`gesso rate summary`: keys and scores files, whoever sent them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from launch.rating.files import Key, read_key, read_sheet
from tests.launch.rating.gallery import MAKE, METHODS, gesso, scores_file


def test_summary_of_scores_made_by_hand(key: Key, capsys: pytest.CaptureFixture[str]) -> None:
    first = [item for item in key.items if key.items[item].method == METHODS[0]]
    second = [item for item in key.items if key.items[item].method == METHODS[1]]
    scores_file("ann.json", key, {**dict.fromkeys(first, 5), **dict.fromkeys(second, 2)})
    # Of two files of one rater the later one counts, in whatever order they are named; no rater is one of its own.
    scores_file("old.json", key, dict.fromkeys(first, 1), rater="bob", saved="2026-11-20T09:00:00Z")
    scores_file("new.json", key, dict.fromkeys(first, 3), rater="bob", saved="2026-11-20T10:30:00+02:00")
    scores_file("late.json", key, dict.fromkeys(first, 4), rater="bob", saved="2026-11-20T10:00:00.123Z")
    capsys.readouterr()
    assert gesso("summary", "late.json", "ann.json", "old.json", "new.json", "--json", "figures.json") == 0
    out = capsys.readouterr().out
    assert key.question in out
    assert re.search(rf"{METHODS[0]} +6 +2 +3 +4.50 +4.50 to 4.50", out)
    assert re.search(rf"{METHODS[0]} - {METHODS[1]} +1 +3 +\+3.00 +\+3.00 to \+3.00", out)
    figures = json.loads(Path("figures.json").read_text())
    assert [(row["method"], row["ratings"], row["mean"]) for row in figures["methods"]] == [
        (METHODS[0], 6, 4.5),
        (METHODS[1], 3, 2),
    ]
    assert figures["differences"][0]["mean"] == 3


def entry(score: object = 3, seconds: object = 1, **more: object) -> dict[str, object]:
    return {"id": "ID", "score": score, "seconds": seconds, **more}


BAD_SCORES = {
    "empty": ("", "not JSON that can be read"),
    "binary": (b"\x89PNG\xff\xfe", "not JSON that can be read"),
    "deep": ("[" * 200_000, "not JSON that can be read"),
    "not an object": ("[1]", "not a JSON object"),
    "no scores": ({"page": "PAGE"}, "no scores of a rating page"),
    "rater is a number": ({"page": "PAGE", "rater": 7, "scores": [entry()]}, "no scores of a rating page"),
    "another page": ({"page": "0" * 16, "scores": [entry()]}, "scores of page '0000000000000000', whose key is not"),
    "unknown id": ({"page": "PAGE", "scores": [entry(id="\x1b[31m" + "x" * 99)]}, r"id '\x1b[31mxxxx"),
    "no id": ({"page": "PAGE", "scores": [{"score": 3}]}, "a score without an id"),
    "zero": ({"page": "PAGE", "scores": [entry(0)]}, "is not a whole number from 1 to 5"),
    "six": ({"page": "PAGE", "scores": [entry(6)]}, "is not a whole number from 1 to 5"),
    "half": ({"page": "PAGE", "scores": [entry(3.5)]}, "is not a whole number from 1 to 5"),
    "true": ({"page": "PAGE", "scores": [entry(True)]}, "is not a whole number from 1 to 5"),
    "text": ({"page": "PAGE", "scores": [entry("3")]}, "is not a whole number from 1 to 5"),
    "no score": ({"page": "PAGE", "scores": [{"id": "ID"}]}, "is not a whole number from 1 to 5"),
    "negative time": ({"page": "PAGE", "scores": [entry(seconds=-1)]}, "the seconds of id"),
    "infinite time": ('{"page": "PAGE", "scores": [{"id": "ID", "score": 3, "seconds": 1e999}]}', "the seconds of id"),
    "NaN": ('{"page": "PAGE", "scores": [{"id": "ID", "score": NaN}]}', "NaN is not JSON"),
    "twice": ({"page": "PAGE", "scores": [entry(), entry()]}, "is scored twice"),
    "nothing": ({"page": "PAGE", "scores": []}, "nothing is scored in it"),
    "when": ({"page": "PAGE", "scores": [entry()], "saved": "yesterday"}, "`saved` is not a date and time"),
}


@pytest.mark.parametrize("name", BAD_SCORES)
def test_a_bad_file_gets_one_line_and_the_others_count(name: str, key: Key, capsys: pytest.CaptureFixture[str]) -> None:
    content, says = BAD_SCORES[name]
    if not isinstance(content, bytes):
        text = content if isinstance(content, str) else json.dumps(content)
        content = text.replace("PAGE", key.page).replace("ID", next(iter(key.items))).encode()
    Path("bad.json").write_bytes(content)
    scores_file("good.json", key, dict.fromkeys(key.items, 4))
    capsys.readouterr()
    assert gesso("summary", "bad.json", "good.json") == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("gesso: bad.json: ")
    assert says in line
    assert line.isprintable()
    assert len(line) < 160
    assert f"{METHODS[0]}" in captured.out
    assert gesso("summary", "bad.json", "nowhere.json") == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[1] == "gesso: nowhere.json: no such file"
    assert captured.out == ""


def test_where_the_key_is_found(key: Key, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gallery / "mail").mkdir()
    good = str(scores_file("mail/good.json", key, dict.fromkeys(key.items, 4)))
    assert gesso("summary", good) == 2
    assert "whose key is not here (--page or --key names it)" in capsys.readouterr().err
    assert gesso("summary", good, "--page", "rate.html") == 0
    assert gesso("summary", good, "--key", "rate.key.json") == 0
    shutil.copy("rate.key.json", "mail")
    Path("mail/other.key.json").write_text("not a key")
    assert gesso("summary", good) == 0
    with pytest.raises(FileNotFoundError, match=r"photos\.key\.json: no such file"):
        gesso("summary", good, "--page", "photos.html")
    for text in ("{}", '{"page": "a", "question": "b", "items": {"c": "d"}}'):
        Path("mail/other.key.json").write_text(text)
        with pytest.raises(ValueError, match=r"other\.key\.json: .*key of a rating page"):
            gesso("summary", good, "--key", "mail/other.key.json")


def test_several_pages(key: Key, capsys: pytest.CaptureFixture[str]) -> None:
    """The same pictures on two pages are the same pictures; two questions are not one."""
    assert gesso("make", "photos", "[bold]third=" + METHODS[0], "--out", "more.html") == 0
    assert gesso(*MAKE[:-1], "other.html", "--question", "style") == 0
    more, other = read_key(Path("more.key.json")), read_key(Path("other.key.json"))
    scores_file("a.json", key, dict.fromkeys(key.items, 4), rater="ann")
    scores_file("b.json", more, dict.fromkeys(more.items, 3), rater="ann")
    scores_file("c.json", other, dict.fromkeys(other.items, 3), rater="ann")
    capsys.readouterr()
    assert gesso("summary", "a.json", "b.json", "--json", "figures.json") == 0
    assert "[bold]third" in capsys.readouterr().out
    pairs = json.loads(Path("figures.json").read_text())["differences"]
    assert [(pair["mean"], pair["pictures"]) for pair in pairs] == [(0, 3), (1, 3), (1, 3)]
    with pytest.raises(ValueError, match="answer 2 questions"):
        gesso("summary", "a.json", "c.json")


def test_a_huge_file_is_not_read(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    file = scores_file("good.json", key, dict.fromkeys(key.items, 4))
    assert len(read_sheet(file, {key.page: key}).scores) == 6
    monkeypatch.setattr("launch.rating.files.MAX_BYTES", 100)
    with pytest.raises(ValueError, match="more than 0 MB"):
        read_sheet(file, {key.page: key})
