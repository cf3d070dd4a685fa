"""The script of the rating page, in a small browser: orders, answers, and a browser that keeps nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import launch.rating
from launch.rating.files import read_key
from tests.launch.rating.gallery import MAKE, gesso

pytestmark = pytest.mark.process

SCRIPT = Path(launch.rating.__file__).with_name("page.js")

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
