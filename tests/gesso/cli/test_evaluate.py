"""`gesso evaluate` of a shard set: what it is compared with, how many pictures there really were, what is refused."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from datamodules.manifest import Manifest
from gesso.cli.main import main

LIGHT = ["--extractor", "mobilenet_v2"]


@pytest.fixture(scope="module")
def few(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the digits whose name holds a colon."""
    return Path(shutil.copytree(shards, tmp_path_factory.mktemp("sets") / "digits: few"))


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict, str]:
    capsys.readouterr()
    assert main(["evaluate", *arguments, *LIGHT]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err.strip().splitlines()[-1]


@pytest.mark.network
@pytest.mark.slow
def test_what_was_done_is_what_is_reported(shards: Path, few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {name: split.samples for name, split in Manifest.load(shards).splits.items()}
    asked = ["--metrics", "fid", "kid", "prdc", "--reference-samples", "5000", "--against", f"{few}:val"]
    result, line = evaluate(capsys, str(shards), *asked)
    assert result["samples"] == splits["test"]
    assert (result["reference"]["split"], result["reference"]["images"]) == ("val", splits["val"])
    smaller = min(splits["test"], splits["val"])
    assert result["settings"] == {
        "kid": {"subsets": 100, "subset_size": smaller // 2},
        "prdc": {"nearest_k": 5, "real": splits["val"], "generated": splits["test"]},
    }
    assert line.startswith(
        f"{splits['test']} pictures against {splits['val']} of {result['reference']['name']}, split val: FID of "
    )
    assert result["remarks"] == line.partition(": ")[2].split("; ")
    assert f"KID of subsets of {smaller // 2} instead of 1,000" in result["remarks"][1]
    # The older options say the same.
    older, _ = evaluate(capsys, str(shards), *asked[:4], "--data", str(few), "--reference", "val")
    assert older == result
    # A split of the same set; and a set's name alone, colon and all.
    own, _ = evaluate(capsys, str(shards), "--metrics", "prdc", "--against", ":val")
    assert own["extractor"] == "mobilenet_v2"
    assert "seed" not in own, "nothing was drawn"
    assert own["precision/mobilenet_v2"] == result["precision/mobilenet_v2"]
    whole, _ = evaluate(capsys, str(shards), "--metrics", "prdc", "--against", str(few), "--reference-samples", "60")
    assert (whole["reference"]["split"], whole["reference"]["images"]) == ("train", 60)
    # A metric that compares with no set has its remark, too.
    alone, line = evaluate(capsys, str(shards), "--metrics", "is")
    assert alone["remarks"] == ["IS of fewer than 2,048 is too low, and comparable only with figures of just as many"]
    assert line == f"{splits['test']} pictures; {alone['remarks'][0]}"


@pytest.mark.network
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--reference-samples", "0"], "--reference-samples must be 2 or more, not 0"),
        (["--num-samples", "1"], "--num-samples must be 2 or more, not 1"),
        (["--batch-size", "0"], "--batch-size must be 1 or more, not 0"),
        (["--against", ":val", "--reference", "train"], "--against names the split too: leave --reference out"),
        (["--against", ":dev"], "no split 'dev'"),
        (["--against", "elsewhere:val"], "elsewhere"),
        (
            ["--num-samples", "3", "--metrics", "fid", "kid"],
            "--metrics: kid cannot be measured of 3 measured pictures, 4 or more are needed: take more, or",
        ),
        (
            ["--reference-samples", "5", "--metrics", "kid", "prdc"],
            "split train), 6 or more are needed: compare with more, or leave prdc out",
        ),
    ],
)
def test_a_mistake_is_one_line(
    shards: Path, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(shards), *LIGHT, *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gesso: ")
    assert error in line


def test_an_average_of_another_width_does_not_take_the_place_of_its_checkpoint_s_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "averages").mkdir()
    (tmp_path / "checkpoints" / "000000200000").mkdir(parents=True)
    paths = [tmp_path / "checkpoints" / "000000200000"]
    for width in ("0.1", "0.2"):
        paths.append(tmp_path / "averages" / f"width-{width}-000000200000.safetensors")
        paths[-1].touch()

    def of_run(arguments: argparse.Namespace) -> dict:
        return {"fid/mobilenet_v2": 1.0, "path": arguments.source, "images_seen": 200_000, "samples": 6}

    monkeypatch.setattr("gesso.cli.evaluate._of_run", of_run)
    for path in paths:
        assert main(["evaluate", str(path), *LIGHT]) == 0
    kept = [json.loads(file.read_text())["path"] for file in (tmp_path / "evaluations").iterdir()]
    assert sorted(kept) == sorted(map(str, paths))
