"""The report page: every figure on it is read back out of the HTML and compared with what the run folder holds."""

from __future__ import annotations

import argparse
import base64
import csv
import html
import json
import math
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from launch.checkpoints.layout import write
from launch.commands import report as command
from launch.pictures import save_png
from launch.report import write_report
from launch.report.charts import Chart, Line, label, log_ticks, render, smoothed, thinned, tick_label, ticks
from launch.report.curves import loss_charts
from launch.report.page import duration
from launch.report.record import evenly, read_metrics, read_record

Row = tuple[int, str, float]

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, attributes and scripts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write_metrics(run: Path, rows: list[Row]) -> None:
    with (run / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["images_seen", "seconds", "name", "value"])
        writer.writerows([images, "1795244400.125", name, repr(value)] for images, name, value in rows)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with every part that a report can show."""
    run = tmp_path / "my run"
    write(run / "checkpoints" / "000000200000", {})
    info: dict[str, Any] = {
        "name": "digits",
        "family": "DCGAN",
        "command": "gesso fit --config mnist-dcgan --run.kimg 200",
        "created": "2026-11-21T08:40:12+01:00",
        "wandb_id": "k3j9x2ab",
        "versions": {"torch": "2.14.1", "lightning": "2.6.6"},
        "git": {"commit": "7694ac6f3e", "dirty": True},
        "state": "finished",
        "kimg": 200.0,
        "seconds": 184.3,
        "images_per_second": 1173.4,
        "restarts": 2,
        "device": "CPU",
        "world_size": 1,
        "error": None,
    }
    (run / "run.json").write_text(json.dumps(info))
    (run / "config.yaml").write_text("model:\n  init_args:\n    resolution: 32\n")
    fids = {40: 219.0, 80: 98.25, 120: 39.5, 160: 41.0, 200: 41.2}
    rows: list[Row] = []
    for kimg in range(5, 201, 5):
        rows.append((kimg * 1000, "loss/generator/loss", 1 + kimg / 100))
        rows.append((kimg * 1000, "loss/discriminator/loss", 1 - kimg / 250))
        if kimg in fids:
            rows += [(kimg * 1000, "fid/mobilenet_v2", fids[kimg]), (kimg * 1000, "is/mobilenet_v2", kimg / 50)]
            rows += [(kimg * 1000, "kid/mobilenet_v2", 0.01), (kimg * 1000, "kid_std/mobilenet_v2", 0.0015)]
            rows.append((kimg * 1000, "evaluation/samples", 1000))
    write_metrics(run, rows)
    for kimg in (40, 80, 120, 160, 200):
        save_png(np.full((64, 96), kimg, np.uint8), run / "samples" / f"{kimg:09d}000.png")
        save_png(np.full((32, 96, 3), kimg, np.uint8), run / "samples" / f"interpolation-{kimg:09d}000.png")
    return run


def test_page_holds_the_run(run: Path) -> None:
    page = Page(write_report(run))
    for fact in (
        "digits",
        "DCGAN",
        "finished",
        "FID (mobilenet_v2, 1,000 samples) 41.2 best 39.5 at 120 kimg",
        "FID ↓ mobilenet_v2, 1,000 samples 219 41.2 39.5 at 120 kimg",
        "Inception Score ↑ mobilenet_v2, 1,000 samples 0.8 4 4 at 200 kimg",
        "KID ↓ mobilenet_v2, 1,000 samples 0.01 0.01 ± 0.0015",
        "trained on 200 kimg 200,000 images",
        "speed 1,173 images/s on CPU",
        "training time 3 min 4 s resumed 2 times",
        "7694ac6f3e, with uncommitted changes",
        "W&B run k3j9x2ab",
        "torch 2.14.1",
        "resolution: 32",
        "gesso fit --config mnist-dcgan --run.kimg 200",
    ):
        assert fact in page.text
    titles = [chart["aria-label"] for chart in page.attributes("svg")]
    assert {"FID", "KID", "Inception Score", "loss"} == set(titles)
    assert [path.name for path in run.iterdir() if "partial" in path.name] == []


def test_page_needs_nothing_else(run: Path) -> None:
    page = Page(write_report(run))
    references = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(references) == 5 + 1 + 1
    assert all(reference.startswith("data:") for reference in references)
    # The one address is a name: SVG's namespace.
    assert set(re.findall(r"https?://[^\s\"']+", page.source)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_pictures_arrive_pixel_by_pixel_the_last_one_in_sight(run: Path) -> None:
    images = Page(write_report(run)).attributes("img")
    assert [image["alt"] for image in images] == [
        "40 kimg · FID 219",
        "80 kimg · FID 98.2",
        "120 kimg · FID 39.5",
        "160 kimg · FID 41",
        "200 kimg · FID 41.2",
        "interpolation",
    ]
    assert ["hidden" in image for image in images] == [True, True, True, True, False, False]
    files = [run / "samples" / f"{kimg:09d}000.png" for kimg in (40, 80, 120, 160, 200)]
    for image, file in zip(images, [*files, run / "samples" / "interpolation-000000200000.png"], strict=True):
        raw = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        shown = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown is not None
        assert np.array_equal(shown, cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
        assert (int(image["height"]), int(image["width"])) == shown.shape[:2]


def test_everything_is_escaped(run: Path) -> None:
    evil = "</script><script>alert('\"1\"')</script><img src=x onerror=alert(2)>"
    plain = Page(write_report(run))
    info = json.loads((run / "run.json").read_text())
    fields = dict.fromkeys(
        ["name", "family", "command", "created", "wandb_id", "state", "error", "host", "device"], evil
    )
    (run / "run.json").write_text(json.dumps({**info, **fields, "versions": {evil: evil}, "git": {"commit": evil}}))
    (run / "config.yaml").write_text(f"path: {evil}\n{evil}: 1\n")
    (run / "evaluations").mkdir()
    reference = {"name": evil, "split": evil}
    (run / "evaluations" / "1.json").write_text(json.dumps({f"fid/{evil}": 1.5, "reference": reference}))
    names = (f"loss/{evil}/loss", "loss/b/loss", f"val/{evil}", f"fid/{evil}", f"lr {evil}")
    write_metrics(run, [(kimg * 1000, name, kimg) for kimg in (1, 2) for name in names])
    (run / "samples" / "interpolation-000000200000.png").rename(
        run / "samples" / "<img src=x onerror='alert()'>-000000200000.png"
    )
    page = Page(write_report(run))
    assert len(page.attributes("script")) == len(plain.attributes("script")) == 1
    assert all(image["src"].startswith("data:") for image in page.attributes("img"))
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.text.count(evil) > 10


@pytest.mark.parametrize(
    "missing", [["config.yaml"], ["run.json"], ["metrics.csv"], ["samples"], ["checkpoints"], "all"]
)
def test_parts_may_be_missing(run: Path, missing: list[str] | str) -> None:
    kept = [["run.json"], ["config.yaml"], ["metrics.csv"]] if missing == "all" else [None]
    for keep in kept:
        for name in ("config.yaml", "run.json", "metrics.csv", "samples", "checkpoints"):
            path = run / name
            if (name in missing or (keep and name not in keep)) and path.exists():
                path.rename(run / f"{name}.away")
        page = Page(write_report(run))
        sections = {"config.yaml": "Config", "metrics.csv": "Metrics", "samples": "Samples"}
        for name, title in sections.items():
            assert (f"<h2>{title}</h2>" in page.source) == (run / name).exists()
        assert ("gesso generate" in page.text) == (run / "checkpoints").exists()
        assert ("digits" in page.text) == (run / "run.json").exists()
        for away in run.glob("*.away"):
            away.rename(away.with_suffix(""))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run here"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_named_or_left_out(run: Path) -> None:
    (run / "samples" / "000000200000.png").write_bytes((run / "samples" / "000000160000.png").read_bytes()[:60])
    (run / "samples" / "interpolation-000000200000.png").write_bytes(b"no picture")
    (run / "evaluations").mkdir()
    (run / "evaluations" / "1.json").write_text("{")
    page = Page(write_report(run))
    assert [image["alt"][:8] for image in page.attributes("img")] == ["40 kimg ", "80 kimg ", "120 kimg", "160 kimg"]
    assert "hidden" not in page.attributes("img")[-1]
    (run / "run.json").write_text('{"name": ')
    with pytest.raises(ValueError, match=r"run\.json: not readable as JSON"):
        write_report(run)


def test_an_earlier_page_survives_a_full_disk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(run).read_text()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"report\.html: cannot be written \(No space left on device\)"):
        write_report(run)
    assert (run / "report.html").read_text() == before


def test_states(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    error = "OSError: the disk is <full>"
    (run / "run.json").write_text(json.dumps({**info, "state": "failed", "kimg": 52.5, "error": error}))
    page = Page(write_report(run))
    assert "failed at 52.5 kimg" in page.text
    assert error in page.text
    (run / "run.json").write_text(json.dumps({**info, "state": "interrupted", "kimg": 52.5}))
    assert "interrupted at 52.5 kimg" in Page(write_report(run)).text


def test_commands_survive_a_shell(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    for state, option in (("interrupted", []), ("finished", ["--run.kimg", "KIMG"])):
        (run / "run.json").write_text(json.dumps({**info, "state": state}))
        commands = [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", write_report(run).read_text())]
        assert [shlex.split(command) for command in commands] == [
            ["gesso", "fit", "--config", "mnist-dcgan", "--run.kimg", "200"],
            ["gesso", "fit", "--resume", str(run), *option],
            ["gesso", "generate", str(run), "--num", "64"],
            ["gesso", "evaluate", str(run)],
        ]


def test_evaluations_say_what_made_them(run: Path) -> None:
    (run / "evaluations").mkdir()
    result = {
        "fid/inception-tf": 21.337,
        "kid/inception-tf": 0.0121,
        "kid_std/inception-tf": 0.0009,
        "images_seen": 200_000,
        "samples": 50_000,
        "extractor": "inception-tf",
        "reference": {"name": "mnist", "split": "train", "images": 60_000},
    }
    (run / "evaluations" / "000000200000-inception-tf-50000.json").write_text(json.dumps(result))
    text = Page(write_report(run)).text
    assert "FID inception-tf, 50,000 samples, against mnist train 200 kimg 21.3" in text
    assert "KID inception-tf, 50,000 samples, against mnist train 200 kimg 0.0121 ± 0.0009" in text


def test_a_large_run_stays_a_small_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = save_png(rng.integers(0, 256, (700, 700, 3), dtype=np.uint8), tmp_path / "noise.png").read_bytes()
    (tmp_path / "samples").mkdir()
    for name in [f"{kimg:09d}000" for kimg in range(0, 4000, 100)] + [
        "interpolation-000003900000",
        "reconstruction-000003900000",
    ]:
        (tmp_path / "samples" / f"{name}.png").write_bytes(noise)
    assert 26 * len(noise) > 30e6
    names = [f"loss/network{k}/loss" for k in range(6)]
    write_metrics(tmp_path, [(step * 100, name, rng.random()) for step in range(20_000) for name in names])
    file = write_report(tmp_path)
    assert file.stat().st_size < 8e6
    images = Page(file).attributes("img")
    assert len(images) == 24 + 2
    assert [images[0]["alt"], images[23]["alt"]] == ["0 kimg", "3,900 kimg"]
    assert int(images[23]["width"]) > int(images[0]["width"]) >= 400, "the final grid is the finest"


# ---- metrics.csv ----------------------------------------------------------------------------------------------------


def test_what_a_resumed_run_logs_again_replaces_what_it_logged_before(tmp_path: Path) -> None:
    first = [(images, "loss/a/loss", 1.0) for images in range(1000, 7000, 1000)] + [(6000, "fid/x", 90.0)]
    again = [(images, "loss/a/loss", 2.0) for images in range(4000, 6000, 1000)]
    write_metrics(tmp_path, [*first, *again])
    series = read_metrics(tmp_path / "metrics.csv")
    assert series["loss/a/loss"] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]
    assert "fid/x" not in series, "the FID at 6 kimg was of weights that are gone"
    write_metrics(tmp_path, [(1000, "a", 1.0), (2000, "a", 1.0), (2000, "b", 5.0), (2000, "a", 2.0)])
    assert read_metrics(tmp_path / "metrics.csv") == {"a": [(1, 1.0), (2, 2.0)], "b": [(2, 5.0)]}


def test_torn_lines_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    good = "1000,1.5,loss/a/loss,0.25\r\n"
    torn = [
        "2000,1.5,loss/a",
        "2000,1.5,lo3000,1.5,loss/a/loss,9\r\n",
        "x,1,a,1\r\n",
        "\r\n",
        "\0\0\r\n",
        "4000,1,a,nan\r\n",
    ]
    file.write_bytes(("images_seen,seconds,name,value\r\n" + good + "".join(torn[1:]) + torn[0]).encode())
    series = read_metrics(file)
    assert series["loss/a/loss"] == [(1, 0.25)]
    assert list(series) == ["loss/a/loss", "a"]
    assert math.isnan(series["a"][0][1])


def test_losses_share_charts_by_what_they_measure(tmp_path: Path) -> None:
    gan = ["generator/loss", "discriminator/loss", "discriminator/real_logits", "discriminator/fake_logits"]
    gan = [f"loss/{name}" for name in [*gan, "discriminator/gradient_penalty"]] + ["val/real_logits"]
    write_metrics(tmp_path, [(1000, name, 1.0) for name in gan])
    assert [(chart.title, [line.label for line in chart.lines]) for chart in loss_charts(read_record(tmp_path))] == [
        ("loss", ["discriminator", "generator"]),
        ("logits", ["discriminator fake", "discriminator real", "held-out real"]),
        ("gradient penalty", ["discriminator"]),
    ]
    vae = ["loss/autoencoder/kl", "loss/autoencoder/loss", "val/loss", "val/kl"]
    write_metrics(tmp_path, [(1000, name, 1.0) for name in vae])
    assert [(chart.title, [line.label for line in chart.lines]) for chart in loss_charts(read_record(tmp_path))] == [
        ("loss", ["autoencoder", "held-out"]),
        ("kl", ["autoencoder", "held-out"]),
    ]


# ---- charts ---------------------------------------------------------------------------------------------------------


def drawings(chart: Chart) -> dict[str, ElementTree.Element]:
    """``linear`` and ``log`` -> the SVG, parsed as strictly as XML is."""
    svgs = re.findall(r"<svg.*?</svg>", render(chart), re.DOTALL)
    return {svg.get("class", ""): svg for svg in map(ElementTree.fromstring, svgs)}


def stretches(svg: ElementTree.Element, kind: str = "curve") -> list[list[tuple[float, float]]]:
    """The unbroken stretches of a chart's first curve, in its own units."""
    path = next(path for path in svg.iter("path") if path.get("class") == kind)
    parts = path.attrib["d"].split("M")[1:]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in part.split("L"))] for part in parts]


def height_of(svg: ElementTree.Element, tick: str) -> float:
    """Where the axis says that a value is."""
    return next(float(text.attrib["y"]) for text in svg.iter("text") if text.text == tick and "x" in text.attrib)


def test_curve_runs_through_its_points() -> None:
    points = [(0.0, 10.0), (50.0, 40.0), (100.0, 20.0)]
    svg = drawings(Chart("a", [Line("a", points)]))["linear"]
    [(x0, y0), (x1, y1), (x2, y2)] = stretches(svg)[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert (y0 - y1) / (y2 - y1) == pytest.approx(30 / 20, abs=0.01)
    assert [y0, y1, y2] == pytest.approx([height_of(svg, tick) for tick in ("10", "40", "20")], abs=0.11)


def test_equal_factors_are_equal_heights_on_a_log_scale() -> None:
    chart = Chart("a", [Line("a", [(float(k), 10.0 ** (k - 3)) for k in range(6)])])
    assert set(drawings(chart)) == {"linear", "log"}
    svg = drawings(chart)["log"]
    heights = [y for _, y in stretches(svg)[0]]
    assert np.diff(heights) == pytest.approx([np.diff(heights).mean()] * 5, abs=0.11)
    assert heights[1] == pytest.approx(height_of(svg, "0.01"), abs=0.11)


@pytest.mark.parametrize("values", [[1.0, 0.0, 5.0], [1.0, -1.0, 5.0], [1.0, 1.1, 1.2]])
def test_no_log_scale_where_it_makes_no_sense(values: list[float]) -> None:
    assert set(drawings(Chart("a", [Line("a", list(enumerate(values)))]))) == {"linear"}


def test_values_that_are_not_finite_break_the_curve_and_are_counted() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 2.0), (5.0, 1.0), (9.0, math.nan)]
    chart = Chart("a", [Line("a", points)])
    assert [len(stretch) for stretch in stretches(drawings(chart)["linear"])] == [2, 2]
    assert "3 values were not finite" in render(chart)
    frame = json.loads(drawings(chart)["linear"].attrib["data-frame"])
    assert frame["x"] == [0.0, 9.0], "the run went on where its loss was not a number"
    assert render(Chart("a", [Line("a", [(0.0, math.nan)])])) == ""


@pytest.mark.parametrize(
    "values", [[3.0], [0.0, 0.0], [-2.0, -2.0], [1e30, 1e-30], [1.0, 1.0 + 1e-9], [1e-12, 3e-12], [3e6, 3.02e6]]
)
def test_any_range_can_be_drawn(values: list[float]) -> None:
    for svg in drawings(Chart("a", [Line("a", list(enumerate(values)))], best=(0.0, values[0]))).values():
        for x, y in [point for stretch in stretches(svg) for point in stretch]:
            assert 0 <= x <= 480
            assert 0 <= y <= 240
        assert "nan" not in ElementTree.tostring(svg, encoding="unicode")


def test_band_is_one_standard_deviation_wide() -> None:
    points, spread = [(1.0, 10.0), (2.0, 20.0)], [(1.0, 2.0), (2.0, 4.0)]
    svg = drawings(Chart("a", [Line("a", points, spread)], marks=True))["linear"]
    corners = [float(pair.split(",")[1]) for pair in next(svg.iter("polygon")).attrib["points"].split()]
    unit = (height_of(svg, "10") - height_of(svg, "20")) / 10
    expected = [height_of(svg, "0") - value * unit for value in (12, 24, 16, 8)]
    assert corners == pytest.approx(expected, abs=0.2)


def test_best_point_is_singled_out(run: Path) -> None:
    svg = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", write_report(run).read_text(), re.DOTALL)[0])
    circle = next(circle for circle in svg.iter("circle") if circle.get("class") == "best")
    assert (float(circle.attrib["cx"]), float(circle.attrib["cy"])) == stretches(svg)[0][2]
    assert [text.text for text in svg.iter("text") if text.get("class") == "best"] == ["best 39.5"]


def test_smoothing_is_the_mean_of_the_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=200)
    smooth = smoothed([(float(k), float(value)) for k, value in enumerate(values)])
    assert [x for x, _ in smooth] == list(range(200))
    inside = np.convolve(values, np.ones(11) / 11, mode="valid")
    np.testing.assert_allclose([y for _, y in smooth][5:-5], inside, atol=1e-12)
    assert smooth[0][1] == pytest.approx(values[:6].mean())
    assert smooth[-1][1] == pytest.approx(values[-6:].mean())
    assert smoothed([(float(k), 1.0) for k in range(29)]) == []
    # A spike's weight goes when it leaves the window: nothing of 1e30 lingers in a running sum.
    spike = smoothed([(float(k), 1e30 if k == 50 else 0.1) for k in range(100)])
    assert spike[-1][1] == pytest.approx(0.1)


def test_thinning_keeps_spikes_gaps_and_ends() -> None:
    points = [(float(k), math.sin(k / 500)) for k in range(10_000)]
    points[4321], points[777], points[8000] = (4321.0, 50.0), (777.0, -50.0), (8000.0, math.nan)
    kept = thinned(points)
    assert len(kept) < 520
    assert {points[0], points[777], points[4321], points[8000], points[-1]} <= set(kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, ["0", "20", "40", "60", "80", "100"]),
        (0, 0.0007, ["0", "0.0002", "0.0004", "0.0006"]),
        (-2.1, 2.1, ["-2", "-1", "0", "1", "2"]),
        (3e6, 3.02e6, ["3,000k", "3,005k", "3,010k", "3,015k", "3,020k"]),
        (0, 25_000, ["0", "5,000", "10,000", "15,000", "20,000", "25,000"]),
        (0.951, 0.96, ["0.952", "0.954", "0.956", "0.958", "0.96"]),
    ],
)
def test_ticks(low: float, high: float, expected: list[str]) -> None:
    assert [tick_label(tick) for tick in ticks(low, high)] == expected


def test_log_ticks() -> None:
    assert log_ticks(0.9, 60) == [1, 2, 5, 10, 20, 50]
    assert log_ticks(1e-6, 1e3) == pytest.approx([10.0**k for k in range(-6, 4)])


def test_figures() -> None:
    numbers = [41.234, 0.00312, 999.9, 12_800.4, -1500.0, 0.0, math.inf]
    assert [label(number) for number in numbers] == ["41.2", "0.00312", "1,000", "12,800", "-1,500", "0", "inf"]
    seconds = [0.2, 59.7, 184.3, 3600, 7800, 273_600]
    assert [duration(number) for number in seconds] == ["0 s", "1 min", "3 min 4 s", "1 h", "2 h 10 min", "3 d 4 h"]
    assert evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 4) == [1, 2]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["report", str(run)])
    assert arguments.run(arguments) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").is_file()


def test_report_needs_no_torch() -> None:
    code = "import sys, launch.report, launch.commands.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
