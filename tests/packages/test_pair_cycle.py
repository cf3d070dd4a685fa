"""A translating family in a package of its own, installed outside the checkout: what docs/add-a-family.md shows."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.elsewhere import Elsewhere, assert_page_shows


def test_the_page_shows_the_package() -> None:
    assert_page_shows("A translating family", "pair_cycle")


@pytest.fixture(scope="module")
def elsewhere(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """With shard sets of the digits 0 to 4 and 5 to 9, 100 of each set."""
    user = Elsewhere(tmp_path_factory.mktemp("elsewhere"), "pair_cycle")
    for name, classes in (("low", range(5)), ("high", range(5, 10))):
        for number in classes:
            (user.folder / name / str(number)).mkdir(parents=True)
            for file in sorted((digits / str(number)).iterdir())[:40]:
                shutil.copy(file, user.folder / name / str(number))
        user.gesso("shards", "build", name, f"shards/{name}", "--size", "32", "--format", "png", "--workers", "1")
    return user


@pytest.fixture(scope="module")
def run(elsewhere: Elsewhere) -> str:
    """The folder of a run of a few steps."""
    small: Sequence[str] = [
        "--model.width=8",
        "--run.kimg=0.064",
        "--run.wandb=disabled",
        "--evaluation.num_samples=16",
        "--evaluation.every_kimg=0.064",
        "--previews.every_kimg=0.064",
        "--checkpoints.every_kimg=0.064",
        "--trainer.accelerator=cpu",
        "--data.workers=0",
    ]
    elsewhere.gesso("fit", "--config", "cycle-digits", *small, "--run.name=tiny")
    return str(elsewhere.run("tiny"))


@pytest.mark.slow
def test_it_is_trained(run: str) -> None:
    assert list((Path(run) / "samples").glob("*.png"))
    # Training measured the recipe's metrics.
    assert "fid/mobilenet_v2" in (Path(run) / "metrics.csv").read_text()


@pytest.mark.slow
def test_it_translates(elsewhere: Elsewhere, run: str) -> None:
    elsewhere.gesso("translate", run, "high/5", "high/6", "--direction", "b-to-a", "--size", "24", "--out", "many")
    many = list((elsewhere.folder / "many").glob("*.png"))
    assert len(many) == 80
    assert {(picture.size, picture.mode) for picture in map(Image.open, many)} == {((24, 24), "L")}


@pytest.mark.slow
def test_it_is_evaluated(elsewhere: Elsewhere, run: str) -> None:
    options = ["--extractor", "mobilenet_v2", "--num-samples", "16", "--device", "cpu", "--metrics", "fid", "ssim"]
    found = json.loads(elsewhere.gesso("evaluate", run, *options, "--sheet", "sheet.png"))
    assert (found["reference"]["name"], found["data"]) == ("high", ["low", "high"])
    assert found["fid/mobilenet_v2"] > 0
    assert -1 <= found["ssim"] <= 1
    assert 2 <= found["samples"] <= 16
    # Both directions are told, and kept side by side.
    other = json.loads(elsewhere.gesso("evaluate", run, *options, "--direction", "b-to-a"))
    kept = [json.loads(file.read_text()) for file in (Path(run) / "evaluations").iterdir()]
    assert {result["direction"]: result for result in kept} == {"a-to-b": found, "b-to-a": other}
    # The report names what such a run can do.
    report = html.unescape((Path(run) / "report.html").read_text())
    assert re.search(r"<code>gesso translate \S+ PICTURE_OR_FOLDER</code>", report)
    assert "gesso generate" not in report
    # Originals above translations, both ways: four rows.
    sheet = np.asarray(Image.open(elsewhere.folder / "sheet.png"))
    assert sheet.shape[1] / sheet.shape[0] == pytest.approx(8 / 4, rel=0.05)
    script = f"""
import gesso, json
options = dict(metrics=["fid", "ssim"], num_samples=16, extractor="mobilenet_v2", device="cpu")
print(json.dumps([
    list(gesso.load({run!r}, device="cpu").translate("{sorted((elsewhere.folder / "low" / "0").iterdir())[0]}").shape),
    gesso.evaluate({run!r}, **options),
    gesso.evaluate({run!r}, direction="b-to-a", **options),
]))
"""
    shape, again, back = json.loads(elsewhere.python("-c", script).splitlines()[-1])
    assert shape == [1, 1, 28, 28]
    assert again == pytest.approx({name: found[name] for name in again}, rel=1e-4)
    assert back["fid/mobilenet_v2"] != again["fid/mobilenet_v2"]
