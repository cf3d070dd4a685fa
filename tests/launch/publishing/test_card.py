"""The model card: figures belong to the weights that are published, and names of strangers stay words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.publishing import folder
from launch.publishing.card import card
from launch.publishing.folder import CARD, PICTURE, write_folder
from launch.report.record import Record
from launch.runs.folder import RunFolder
from tests.launch.serving.models import tiny

SERIES = {"fid/mobilenet_v2": [(50.0, 30.0), (100.0, 12.5)], "evaluation/samples": [(100.0, 50.0)]}


def record(path: Path, *, kimg: float, pictures: list[tuple[float, Path]] | None = None) -> Record:
    info: dict[str, Any] = {"name": "r", "family": "DCGAN", "kimg": kimg, "abilities": ["generate"]}
    info["data"] = [{"name": "<b>digits</b>", "images": 60, "size": 32, "channels": 1, "fingerprint": "ab"}]
    return Record(path, info, "", SERIES, {"samples": pictures or []}, [], True)


@pytest.mark.parametrize(("kimg", "said"), [(100.0, False), (120.0, True)])
def test_a_figure_of_an_earlier_moment_says_so(tmp_path: Path, kimg: float, said: bool) -> None:
    text = card(record(tmp_path, kimg=kimg), weights="averaged", checksum="0" * 64)
    (row,) = (line for line in text.splitlines() if line.startswith("| FID"))
    (result,) = yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
    assert "12.5" in row
    assert ("at 100 kimg" in row, "at 100 kimg" in result["metrics"][0]["name"]) == (said, said)


def test_names_are_no_markup(tmp_path: Path) -> None:
    text = card(record(tmp_path, kimg=100), weights="averaged", checksum="0" * 64)
    assert "| &lt;b&gt;digits&lt;/b&gt; |" in text


@pytest.mark.parametrize(
    ("raw", "averages", "measured"), [(True, True, False), (True, False, True), (False, True, True)]
)
def test_figures_and_pictures_of_averaged_weights_are_not_told_of_raw_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, raw: bool, averages: bool, measured: bool
) -> None:
    preview = tmp_path / "preview.png"
    preview.write_bytes(b"a picture")
    monkeypatch.setattr(folder, "open_run", RunFolder)
    monkeypatch.setattr(folder, "read_record", lambda path: record(path, kimg=100, pictures=[(100.0, preview)]))
    monkeypatch.setattr(
        folder, "load_family", lambda path, average=True: (tiny("DCGAN"), {"average": average and averages})
    )
    out = write_folder(tmp_path, tmp_path / "out", average=not raw)
    text = (out / CARD).read_text()
    assert ("12.5" in text, (out / PICTURE).exists()) == (measured, measured)
    assert ("Nothing of these weights" in text) is not measured
