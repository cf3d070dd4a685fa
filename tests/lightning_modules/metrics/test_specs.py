"""The table of metrics: directions as in the papers, modes that follow or contradict, other packages' metrics."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_modules.metrics import specs

#: As the papers have it, written down by hand.
DIRECTIONS = {
    "fid": "min",
    "kid": "min",
    "kid_std": None,
    "is": "max",
    "is_std": None,
    "precision": "max",
    "recall": "max",
    "density": "max",
    "coverage": "max",
    "precision_k3": "max",
    "recall_k3": "max",
    "ppl_wend": "min",
    "ppl_wfull": "min",
    "ppl_zend": "min",
    "ppl_zfull": "min",
    "diversity": None,
    "diversity_close": None,
    "diversity_real": None,
    "eqt": "max",
    "eqr": "max",
    "lpips": "min",
    "ssim": "max",
    "psnr": "max",
    "truth_lpips": "min",
    "copied_lpips": None,
    "truth_ssim": "max",
    "copied_ssim": None,
    "truth_psnr": "max",
    "copied_psnr": None,
    "content_cosine": "max",
    "gram_distance": "min",
    "statistics_distance": "min",
    "artfid": "min",
    "mig": "max",
    "retrieval": "max",
    "retrieval_mrr": "max",
    "raw_retrieval": None,
    "raw_retrieval_mrr": None,
    "neighbours": "max",
    "raw_neighbours": None,
}


def test_directions_are_the_papers() -> None:
    names = specs.full_names(specs.OWN, "inception-tf")
    assert {name.partition("/")[0]: direction for name, direction in names.items()} == DIRECTIONS
    assert {"fid/inception-tf", "kid_std/inception-tf", "lpips/vgg16", "ssim", "artfid/inception-tf"} <= names.keys()


def test_a_mode_is_the_metrics_own_and_none_contradicts_it() -> None:
    for name, direction in specs.full_names(specs.OWN, "mobilenet_v2").items():
        if direction is None:
            with pytest.raises(ValueError, match=f"neither less nor more of {name} is better"):
                specs.better(name, None, option="--mode")
            assert specs.better(name, "max", option="--mode") == "max"
            continue
        assert specs.better(name, None, option="--mode") == direction
        assert specs.better(name, direction, option="--mode") == direction
        other = "max" if direction == "min" else "min"
        with pytest.raises(ValueError, match=f"--mode {other}: of {name} (less|more) is better; leave --mode out"):
            specs.better(name, other, option="--mode")  # type: ignore[arg-type]
    assert specs.better("val/kl", None, option="--mode") == "min"
    assert specs.better("val/accuracy", "max", option="--mode") == "max"
    assert specs.better("images_per_second", None, option="--mode") == "max"
    # What an evaluator of another package tells.
    assert specs.better("sharpness", None, option="--mode", known={"sharpness": "max"}) == "max"


def test_what_is_measured_where_nothing_was_named() -> None:
    def names(kind: specs.Kind, occasion: specs.Occasion) -> list[str]:
        return [spec.name for spec in specs.choose(kind, None, occasion, what="a family", option="--metrics")]

    assert names("generation", "training") == ["fid", "kid"]
    assert names("generation", "evaluate") == ["fid", "kid", "prdc"]
    assert names("stylization", "training") == ["lpips", "gram_distance"]
    assert set(names("stylization", "evaluate")) == {
        "lpips",
        "ssim",
        "content_cosine",
        "gram_distance",
        "statistics_distance",
    }
    assert names("reconstruction", "training") == ["fid", "lpips", "psnr"]
    with pytest.raises(ValueError, match="--metrics: ssim cannot be measured of a DCGAN; choose from fid, kid"):
        specs.choose("generation", ["fid", "ssim"], "training", what="a DCGAN", option="--metrics")
    with pytest.raises(ValueError, match="no metric 'fidd'"):
        specs.find("fidd")


def test_the_table_needs_no_torch() -> None:
    script = "import sys; import lightning_modules.metrics.specs as s; s.table(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with a metric of its own."""
    (tmp_path / "sharp.py").write_text(
        "from lightning_modules.metrics.specs import MetricSpec, Quantity\n"
        "SHARP = MetricSpec('sharpness', 'how sharp', ('generation',), (Quantity('sharpness', 'Sharpness', 'max'),))\n"
        "TAKEN = MetricSpec('fid', 'mine', ('generation',), (Quantity('fid', 'FID', 'max'),))\n"
    )
    folder = tmp_path / "sharp-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: sharp\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (specs.table, specs._quantities):
        cached.cache_clear()
    yield folder / "entry_points.txt"
    for cached in (specs.table, specs._quantities):
        cached.cache_clear()


def test_a_package_adds_a_metric(package: Path) -> None:
    package.write_text("[gesso.metrics]\nsharp = sharp:SHARP\n")
    assert specs.find("sharpness").quantities[0].direction == "max"
    assert specs.better("sharpness", None, option="--mode") == "max"


def test_a_package_takes_no_name_away(package: Path) -> None:
    package.write_text("[gesso.metrics]\nsharp = sharp:TAKEN\n")
    with pytest.raises(ValueError, match="a metric fid exists already"):
        specs.table()
