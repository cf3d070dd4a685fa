"""The report page: every figure on it is read back out of the HTML and compared with what the run folder holds."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from launch.inference.pictures import save_picture
from launch.report import write_report
from launch.report.pieces import duration
from launch.report.record import evenly
from tests.launch.report.finished import write_metrics

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


def test_page_holds_the_run(run: Path) -> None:
    page = Page(write_report(run))
    for fact in (
        "digits",
        "DCGAN",
        "finished",
        "FID (mobilenet_v2, 1,000 samples against 500 of mnist, train) 41.2 best 39.5 at 120 kimg",
        "FID ↓ mobilenet_v2, 1,000 samples against 500 of mnist, train 219 41.2 39.5 at 120 kimg",
        "Inception Score ↑ mobilenet_v2, 1,000 samples 0.8 4 4 at 200 kimg",
        "KID ↓ mobilenet_v2, 1,000 samples against 500 of mnist, train 0.01 0.01 ± 0.0015",
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
    with pytest.raises(ValueError, match=r"run\.json: damaged .*; delete it"):
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
    scored = ["--extractor", "mobilenet_v2", "--metrics", "fid", "kid", "is", "--num-samples", "1000"]
    for state, option in (("interrupted", []), ("finished", ["--run.kimg", "KIMG"])):
        (run / "run.json").write_text(json.dumps({**info, "state": state}))
        commands = [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", write_report(run).read_text())]
        assert [shlex.split(command) for command in commands] == [
            ["gesso", "fit", "--config", "mnist-dcgan", "--run.kimg", "200"],
            ["gesso", "fit", "--resume", str(run), *option],
            ["gesso", "generate", str(run), "--num", "64"],
            # As the run was scored in training, or the numbers could not be compared.
            ["gesso", "evaluate", str(run), *scored, "--reference-samples", "500"],
        ]


@pytest.mark.parametrize(
    ("abilities", "verbs"),
    [
        (["sheet", "translate"], ["translate"]),
        (["stylize"], ["stylize"]),
        (["encode", "generate", "interpolate"], ["generate", "encode"]),
        ([], []),
        # A run of before.
        (None, ["generate"]),
    ],
)
def test_it_names_what_its_family_can_do(run: Path, abilities: list[str] | None, verbs: list[str]) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info if abilities is None else {**info, "abilities": abilities}))
    page = write_report(run).read_text()
    assert re.findall(r"<code>gesso (generate|stylize|translate|encode) ", page) == verbs


def test_what_it_was_trained_on_is_outside_the_folded_config(run: Path) -> None:
    page = write_report(run).read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["data"] == (
        "mnist, 60,000 images, 32 px, grey, 10 classes <small>shards/mnist · fingerprint 0123456789abcdef</small>"
    )
    assert facts["batch"] == "32 images"
    assert facts["seed"] == "7"
    assert facts["parameters"] == "3,000,000 <small>(generator 2,000,000, discriminator 1,000,000)</small>"
    assert facts["machine"] == "node7, Some CPU, family 6, model 1"
    assert facts["cores"] == "2, 1 threads a rank"
    assert facts["score it"].endswith("<small>about 1 min 12 s, as in training</small>")
    assert page.count("mobilenet_v2, 1,000 samples against 500 of mnist, train") >= 3
    assert "--num-samples 1000 --reference-samples 500</code>" in page


def test_real_pictures_stand_first_beside_the_samples(run: Path) -> None:
    for name in ("real-000000000000", "nearest-000000200000"):
        save_picture(np.zeros((8, 8), np.uint8), run / "samples" / f"{name}.png")
    captions = re.findall(r"<figcaption><b>(.*?)</b>", write_report(run).read_text())
    assert captions[:4] == ["samples", "real", "interpolation", "nearest"]


def test_all_charts_have_one_axis(run: Path) -> None:
    frames = re.findall(r'data-frame="(.*?)"', write_report(run).read_text())
    assert {tuple(json.loads(html.unescape(frame))["x"]) for frame in frames} == {(0.0, 200.0)}


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
        "settings": {"kid": {"subsets": 100, "subset_size": 6}},
        "remarks": ["KID of subsets of 6 instead of 1,000 is comparable only with figures of such"],
    }
    (run / "evaluations" / "000000200000-inception-tf-50000.json").write_text(json.dumps(result))
    text = Page(write_report(run)).text
    assert "FID inception-tf, 50,000 samples, against 60,000 of mnist, train 200 kimg 21.3" in text
    made = "inception-tf, 50,000 samples, against 60,000 of mnist, train, subsets 100, subset size 6"
    assert f"KID {made} 200 kimg 0.0121 ± 0.0009" in text
    assert "KID of subsets of 6 instead of 1,000 is comparable only with figures of such" in text


def test_the_two_directions_of_a_translating_run_stand_side_by_side(run: Path) -> None:
    (run / "evaluations").mkdir()
    for way, fid in (("a-to-b", 246.19), ("b-to-a", 198.48)):
        result = {"fid/mobilenet_v2": fid, "images_seen": 112_000, "samples": 6, "direction": way}
        (run / "evaluations" / f"000000112000-{way}.json").write_text(json.dumps(result))
    text = Page(write_report(run)).text
    assert "FID mobilenet_v2, a-to-b, 6 samples 112 kimg 246" in text
    assert "FID mobilenet_v2, b-to-a, 6 samples 112 kimg 198" in text


def test_figures_of_other_weights_than_the_average_say_so(run: Path) -> None:
    (run / "evaluations").mkdir()
    checkpoint = str(run / "checkpoints" / "000000200000")
    measured = [
        (checkpoint, True, 21.0),
        (checkpoint, False, 25.0),
        (str(run / "averages" / "w-0.2.safetensors"), True, 23.0),
    ]
    for number, (path, average, fid) in enumerate(measured):
        result = {"fid/mobilenet_v2": fid, "images_seen": 200_000, "samples": 6, "path": path, "average": average}
        (run / "evaluations" / f"{number}.json").write_text(json.dumps(result))
    text = Page(write_report(run)).text
    assert "FID mobilenet_v2, 6 samples 200 kimg 21" in text
    assert "FID mobilenet_v2, raw, 6 samples 200 kimg 25" in text
    assert "FID mobilenet_v2, w-0.2, 6 samples 200 kimg 23" in text


def test_scores_against_some_pictures_of_another_split_are_made_again_against_as_many(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    compared = [{"name": "mnist", "split": "val", "images": 500, "size": 32}]
    (run / "run.json").write_text(json.dumps({**info, "compared_with": compared}))
    assert "--num-samples 1000 --against :val --reference-samples 500</code>" in write_report(run).read_text()


def test_a_run_s_own_scores_say_their_settings(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    settings = {"kid": {"subsets": 100, "subset_size": 250}}
    (run / "run.json").write_text(json.dumps({**info, "evaluation_settings": settings}))
    text = Page(write_report(run)).text
    assert "KID ↓ mobilenet_v2, 1,000 samples against 500 of mnist, train, subsets 100, subset size 250" in text


@pytest.mark.slow
def test_a_large_run_stays_a_small_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = save_picture(rng.integers(0, 256, (700, 700, 3), dtype=np.uint8), tmp_path / "noise.png").read_bytes()
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


def test_times_and_choices() -> None:
    seconds = [0.2, 59.7, 184.3, 3600, 7800, 273_600]
    assert [duration(number) for number in seconds] == ["0 s", "1 min", "3 min 4 s", "1 h", "2 h 10 min", "3 d 4 h"]
    assert evenly(list(range(10)), 4) == [0, 3, 6, 9]
    assert evenly([1, 2], 4) == [1, 2]
