"""`gesso rate`: what the page shows and hides, what its script does, and figures against scipy's."""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import shutil
import subprocess
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from scipy import stats

import launch.rating
from gesso.cli import rate
from gesso.cli.main import explain
from gesso.common.files import write_all_whole
from gesso.common.pixels import to_uint8
from launch.rating.files import Key, read_key, read_sheet
from launch.rating.scores import Rating, by_method, differences, t_interval
from tests.pictures import photographs

SCRIPT = Path(launch.rating.__file__).with_name("page.js")
METHODS = ("embossed_by_us", "posterised_by_them")
STEMS = ("dawn_over_sea", "noon_on_moor", "rain_in_town")
MAKE = ("make", "photos", *(f"{method}={method}" for method in METHODS), "--out", "rate.html")


def gesso(*arguments: str) -> int:
    top = argparse.ArgumentParser()
    rate.add_parser(top.add_subparsers())
    parsed = top.parse_args(["rate", *arguments])
    return parsed.run(parsed)


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs, and what two methods made of them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", *METHODS):
        (tmp_path / folder).mkdir()
    for stem, pixels in zip(STEMS, to_uint8(photographs(96)), strict=True):
        photo = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        photo.save(f"photos/{stem}.jpg", quality=95)
        photo.filter(ImageFilter.EMBOSS).save(f"{METHODS[0]}/{stem}.png")
        ImageOps.posterize(photo, 2).save(f"{METHODS[1]}/{stem}.png")
    ImageOps.solarize(photo).save("painting.png")
    return tmp_path


def data_of(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(page).read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def jpeg(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def distance(shown: Image.Image, file: Path) -> float:
    original = Image.open(file).convert("RGB").resize(shown.size, Image.Resampling.LANCZOS)
    return float(np.abs(np.asarray(shown, float) - np.asarray(original, float)).mean())


def scores_file(name: str, key: Key, scores: dict[str, int], **more: object) -> Path:
    entries = [{"id": item, "score": score, "seconds": 2.5} for item, score in scores.items()]
    Path(name).write_text(json.dumps({"page": key.page, "rater": name, "scores": entries, **more}))
    return Path(name)


# ---- the page -------------------------------------------------------------------------------------------------------


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


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "missing" / "second"
    first.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_all_whole({first: "new", second: "\udc80"})
    assert first.read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["first"]


# ---- the page's script ----------------------------------------------------------------------------------------------

#: A browser small enough to read: elements that remember, storage, a clock that is set by hand.
BROWSER = """
const fs = require("fs");
const { shuffled, start } = require(process.argv[2]);
const page = fs.readFileSync(process.argv[3], "utf8");
const data = page.match(/id="data">([^]*?)<\\/script>/)[1];
const kept = new Map();
let now = 0;
const sheets = [];
URL.createObjectURL = (blob) => { sheets.push(blob); return "blob:"; };
globalThis.setTimeout = () => 0;
function open(storage = { getItem: (k) => kept.get(k) ?? null, setItem: (k, v) => kept.set(k, v) }) {
  const parts = new Map();
  const element = (id) => ({
    id, heard: {}, textContent: id === "data" ? data : "", value: "", hidden: false, disabled: false, attributes: {},
    addEventListener(what, action) { this.heard[what] = action; },
    setAttribute(name, value) { this.attributes[name] = value; },
    focus() {}, click() { if (!this.disabled && this.heard.click) this.heard.click(); },
  });
  for (const [, id] of page.matchAll(/<[^>]* id="([\\w-]+)"/g)) parts.set(id, element(id));
  const document = { ...element("document"), getElementById: (id) => parts.get(id), createElement: element };
  const window = { ...element("window"), confirm: () => true, get localStorage() { return storage; } };
  start(document, window, () => now);
  const press = (key, more = {}) => {
    now += 2000;
    document.heard.keydown({ key, target: { id: "" }, ...more });
  };
  return { part: (id) => parts.get(id), press, document, window };
}
const fail = (what) => { throw new Error(what); };
const same = (a, b, what) => JSON.stringify(a) === JSON.stringify(b) || fail(`${what}: ${JSON.stringify([a, b])}`);
"""

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def node(program: str, page: Path | str = SCRIPT) -> Any:
    """What a program, run in the small browser, prints as JSON."""
    command = ["node", "-", str(SCRIPT), str(page)]
    done = subprocess.run(command, input=BROWSER + program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_every_rater_gets_another_order_and_all_orders_are_equally_likely(gallery: Path) -> None:
    assert gesso(*MAKE) == 0
    orders = node(
        "console.log(JSON.stringify(Array.from({ length: 6000 }, (_, k) => "
        'shuffled(["a", "b", "c"], k.toString(16).padStart(16, "0")).join(""))));',
        "rate.html",
    )
    counts = [orders.count("".join(order)) for order in permutations("abc")]
    assert sum(counts) == 6000
    assert stats.chisquare(counts).pvalue > 0.001
    again = 'console.log(JSON.stringify([1, 2].map(() => shuffled([1, 2, 3, 4, 5, 6, 7], "me"))));'
    first, second = node(again, "rate.html")
    assert first == second
    assert sorted(first) == [1, 2, 3, 4, 5, 6, 7]


@needs_node
def test_rating_from_the_first_picture_to_the_summary(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gesso(*MAKE) == 0
    sheet, first = node(
        """
        let { part, press, document } = open();
        const result = () => part("result").src;
        same(part("style-figure").hidden, true, "no style");
        same(part("progress").textContent, "1 of 6", "progress");
        same([part("back").disabled, part("save").disabled], [true, true], "nothing yet");
        part("score-4").click();
        same(part("progress").textContent, "1 of 6", "a click on a picture nobody has seen");
        const [one] = [result()];
        press("4"); press("9"); press("4", { repeat: true }); press("3", { ctrlKey: true });
        press("3", { target: { id: "name" } });
        same(part("progress").textContent, "2 of 6", "one answer");
        now += 3000; part("score-2").click();
        const third = result();
        press("ArrowLeft"); press("ArrowLeft"); press("ArrowLeft");
        same([result() === one, part("score-4").attributes["aria-pressed"]], [true, "true"], "back at the first");
        press("5");
        same([result() === third, part("progress").textContent], [true, "3 of 6"], "on after a change");
        ({ part, press, document } = open());
        same([result() === third, part("progress").textContent, part("bar").value], [true, "3 of 6", 2], "reloaded");
        document.hidden = true; document.heard.visibilitychange(); now += 1e6;
        document.hidden = false; document.heard.visibilitychange();
        press("1"); press("1"); press("ArrowRight"); press("1");
        same(part("end").hidden, true, "not the end");
        press("1");
        same([part("end").hidden, part("rating").hidden], [false, true], "the end");
        press("1"); press("ArrowRight");
        part("name").value = "Ann"; part("name").heard.input();
        part("save").click();
        part("another").click();
        same([part("progress").textContent, part("name").value], ["1 of 6", ""], "another person");
        const before = JSON.parse([...kept.values()][0]).rater;
        sheets[0].text().then((text) => console.log(JSON.stringify([JSON.parse(text), before])));
        """,
        "rate.html",
    )
    assert [entry["score"] for entry in sheet["scores"]] == [5, 2, 1, 1, 1, 1]
    # The change took four seconds; those in which the page was hidden do not count.
    assert [entry["seconds"] for entry in sheet["scores"]] == [4, 11, 2, 2, 4, 2]
    assert sheet["name"] == "Ann"
    assert re.fullmatch("[0-9a-f]{16}", sheet["rater"])
    assert sheet["rater"] != first
    Path("ann.json").write_text(json.dumps(sheet))
    capsys.readouterr()
    assert gesso("summary", "ann.json", "--page", "rate.html", "--json", "figures.json") == 0
    key, figures = read_key(Path("rate.key.json")), json.loads(Path("figures.json").read_text())
    for row in figures["methods"]:
        own = [entry["score"] for entry in sheet["scores"] if key.items[entry["id"]].method == row["method"]]
        assert (row["ratings"], row["raters"], row["mean"]) == (3, 1, pytest.approx(np.mean(own)))


@needs_node
def test_a_browser_that_keeps_nothing(gallery: Path) -> None:
    assert gesso(*MAKE) == 0
    note, asked = node(
        """
        const { part, press, window } = open({ getItem() { fail("no"); }, setItem() { fail("no"); } });
        press("3");
        let asked = false;
        window.heard.beforeunload({ preventDefault() { asked = true; } });
        const damaged = open({ getItem: () => '{"rater": "x", "given": {"a": 1}}', setItem() {} });
        same(damaged.part("progress").textContent, "1 of 6", "strange storage");
        console.log(JSON.stringify([part("note").textContent, asked]));
        """,
        "rate.html",
    )
    assert "keeps nothing" in note
    assert asked


# ---- the figures ----------------------------------------------------------------------------------------------------


def crossed(pictures: int, raters: int, seed: int) -> np.ndarray:
    """Scores [method, rater, picture] by strict and kind raters on easy and hard pictures."""
    rng = np.random.default_rng(seed)
    method, rater, picture = np.array([3.4, 2.9, 3.0]), rng.normal(0, 0.5, raters), rng.normal(0, 0.8, pictures)
    level = method[:, None, None] + rater[:, None] + picture
    return np.clip(np.rint(level + rng.normal(0, 0.6, level.shape)), 1, 5).astype(int)


def rated(scores: np.ndarray) -> list[Rating]:
    return [Rating(f"r{r}", f"m{m}", f"p{p}", int(score)) for (m, r, p), score in np.ndenumerate(scores)]


@pytest.mark.parametrize(("pictures", "raters"), [(4, 1), (9, 5), (40, 3)])
def test_intervals_agree_with_scipy(pictures: int, raters: int) -> None:
    scores = crossed(pictures, raters, seed=pictures)
    means = scores.mean(1)
    found = {score.method: score for score in by_method(rated(scores))}
    for method in range(3):
        expected = stats.ttest_1samp(means[method], 0).confidence_interval(0.95)
        score = found[f"m{method}"]
        assert (score.ratings, score.raters, score.pictures) == (pictures * raters, raters, pictures)
        assert score.mean == pytest.approx(scores[method].mean())
        assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    pairs = differences(rated(scores), ["m0", "m1", "m2"])
    assert [(pair.method, pair.other) for pair in pairs] == [("m0", "m1"), ("m0", "m2"), ("m1", "m2")]
    for pair in pairs:
        one, other = int(pair.method[1]), int(pair.other[1])
        expected = stats.ttest_rel(means[one], means[other]).confidence_interval(0.95)
        assert pair.mean == pytest.approx((means[one] - means[other]).mean())
        assert (pair.low, pair.high) == pytest.approx((expected.low, expected.high))


def test_the_best_comes_first_and_one_picture_has_no_interval() -> None:
    scores = by_method([Rating("r", "worse", "p", 2), Rating("r", "better", "p", 4), Rating("s", "better", "p", 5)])
    assert [(score.method, score.mean, score.low, score.high) for score in scores] == [
        ("better", 4.5, None, None),
        ("worse", 2, None, None),
    ]
    assert t_interval([3.0]) == (3.0, None, None)


def test_who_did_not_finish_counts_only_where_they_compared() -> None:
    kind = [Rating("kind", method, picture, 5) for method, picture in (("a", "p"), ("a", "q"), ("a", "r"), ("b", "p"))]
    strict = [Rating("strict", "a", "p", 3), Rating("strict", "b", "p", 1), Rating("strict", "b", "q", 1)]
    strict += [Rating("strict", "b", "r", 1), Rating("strict", "a", "r", 3)]
    (pair,) = differences(kind + strict, ["a", "b"])
    # p: 0 by one and 2 by the other; r: 2 by the one who rated both; q: nobody did.
    expected = stats.ttest_1samp([1, 2], 0).confidence_interval()
    assert (pair.raters, pair.pictures, pair.mean) == (2, 2, 1.5)
    assert (pair.low, pair.high) == pytest.approx((expected.low, expected.high))
    assert differences(kind[:1] + strict[2:3], ["a", "b"]) == []


def test_the_interval_holds_what_it_promises_where_one_over_ratings_does_not() -> None:
    rng = np.random.default_rng(1)
    held = naive = 0
    for _ in range(400):
        # Twelve pictures, each good for 2, 3 or 4, and eight raters who are off by one or not: the true mean is 3.
        scores = rng.integers(2, 5, (1, 1, 12)) + rng.integers(-1, 2, (1, 8, 12))
        (score,) = by_method(rated(scores))
        assert score.low is not None
        assert score.high is not None
        held += score.low <= 3 <= score.high
        over_ratings = stats.ttest_1samp(scores.ravel(), 3)
        naive += over_ratings.pvalue >= 0.05
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < 0.75


# ---- scores files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def key(gallery: Path) -> Key:
    assert gesso(*MAKE) == 0
    return read_key(Path("rate.key.json"))


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
