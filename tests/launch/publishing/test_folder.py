"""A run as a folder for others: its card says what was measured and how, and nothing of this machine's folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from gesso.cli.main import main
from launch.inference.loading import load_family
from launch.publishing.card import card
from launch.publishing.folder import CARD, PICTURE, WEIGHTS
from launch.report.record import read_record
from tests.launch.tiny_fit import TINY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("push")
    os.environ.pop("GESSO_RUN", None)
    assert main(["fit", "--config=mnist-dcgan", *TINY, f"--data.path={shards}", f"--run.root={root}"]) == 0
    os.environ.pop("GESSO_RUN", None)
    (path,) = root.iterdir()
    return path


def test_the_folder_is_all_that_is_needed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert main(["push", str(run), "--dry-run", str(out), "--license", "MIT"]) == 0
    assert sorted(file.name for file in out.iterdir()) == sorted([CARD, WEIGHTS, "model.yaml", PICTURE])
    text = (out / CARD).read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["library_name"], head["license"]) == ("gesso", "mit")
    assert head["pipeline_tag"] == "unconditional-image-generation"
    (entry,) = head["model-index"][0]["results"]
    (metric,) = entry["metrics"]
    assert metric["type"] == "fid"
    assert "mobilenet_v2, 50 samples against 50 of" in metric["name"]
    assert f"{metric['value']:.4g}" in text
    assert hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest() in text
    # Nothing of where it was trained.
    assert not any(str(path) in text for path in (run.parent, tmp_path, Path.home()))
    index = torch.arange(3)
    one, other = (load_family(path)[0].generate(index, seed=1) for path in (run, out / WEIGHTS))
    assert torch.equal(one, other)
    capsys.readouterr()
    assert main(["push", str(run), "--dry-run", str(out)]) == 2
    assert "holds something already" in capsys.readouterr().err


def test_a_card_of_a_style_names_the_pictures_and_their_licences(run: Path) -> None:
    styles = [{"name": "a|b.png", "licence": "CC0-1.0"}, {"name": "unknown.png"}]
    text = card(read_record(run), weights="raw", checksum="0" * 64, styles=styles)
    assert "| a\\|b.png | a style picture | CC0-1.0 |" in text
    assert "| unknown.png | a style picture | licence not stated |" in text
    assert "license" not in yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--to hf:OWNER/NAME says where to"),
        (["--to", "me/model"], "write hf:OWNER/NAME"),
        (["--to", "hf:me"], "write hf:OWNER/NAME"),
        (["--dry-run", "out", "--license", "all rights"], "write an SPDX identifier"),
    ],
)
def test_bad_words_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "no-run", *words]) == 2
    assert said in capsys.readouterr().err
