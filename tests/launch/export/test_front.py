"""From a run to a file, as a user does it: metadata, reproducible bytes, and nothing left of what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from gesso.cli.main import main
from gesso.common.files import sha256
from launch.checkpoints.export import export as export_weights
from launch.export import front
from launch.export.front import Exporter, ExportOptions
from launch.export.samples import Samples
from launch.inference.loading import load_family
from lightning_modules.networks import instance_norm
from tests.launch.export.families import tiny

#: Runs a file in onnxruntime where nothing of ours, and no torch, can be imported.
ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "gesso", "launch", "lightning_modules", "datamodules", "lightning"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
latents = numpy.random.default_rng(int(sys.argv[3])).standard_normal((1, 4), dtype="float32")
numpy.save(sys.argv[2], session.run(["picture"], {"latents": latents})[0])
"""


def saved(name: str, folder: Path) -> Path:
    """A tiny family as a file of weights."""
    file = folder / f"{name}.safetensors"
    export_weights(tiny(name), file, origin={"images_seen": 12_500, "weights": "average"})
    return file


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("VAE", tmp_path_factory.mktemp("vae"))


@pytest.mark.slow
@pytest.mark.process
def test_a_file_runs_where_gesso_is_not(vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vae.onnx"
    assert main(["export", str(vae), "--onnx", str(out), "--check", "3", "--licence", "CC0"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: VAE's decoder, averaged weights at 12.5 kimg; latents -> picture" in said
    assert "of 3 samples" in said
    facts = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert facts["gesso.checkpoint_sha256"] == sha256(vae)
    assert (facts["gesso.kimg"], facts["gesso.weights"], facts["gesso.licence"]) == ("12.5", "average", "CC0")
    assert facts["gesso.value_range"] == "-1 1"
    assert json.loads(facts["gesso.inputs"]) == {"latents": "z ~ N(0, I), float32 [N, 4]"}
    made = []
    for number, seed in enumerate((7, 7, 8)):
        picture = tmp_path / f"{number}.npy"
        subprocess.run([sys.executable, "-c", ALONE, out, picture, str(seed)], check=True)
        made.append(np.load(picture))
    # The same seed, the same picture; and it is the run's.
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    latents = np.random.default_rng(7).standard_normal((1, 4), dtype="float32")
    expected = load_family(vae)[0].decode(torch.from_numpy(latents), None)
    np.testing.assert_allclose(made[0], expected.numpy(), atol=1e-5)
    # The same run gives the same bytes.
    Exporter(str(vae), ExportOptions(check=1, licence="CC0")).onnx(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_torchs_own_file(vae: Path, tmp_path: Path) -> None:
    Exporter(str(vae), ExportOptions(check=2)).pt2(tmp_path / "vae.pt2")
    with (tmp_path / "vae.pt2").open("rb") as stream:
        facts: dict[str, Any] = {"gesso.json": ""}
        program = torch.export.load(stream, extra_files=facts)
    assert json.loads(facts["gesso.json"])["gesso.family"] == "VAE"
    latents = torch.randn(1, 4)
    torch.testing.assert_close(
        program.module()(latents), load_family(vae)[0].decode(latents, None), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_permuted_channels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved("CycleGAN", tmp_path)
    write = front.write_onnx

    def permuted(program: Any, deployable: Any, out: Path, metadata: Any) -> None:
        write(program, deployable, out, metadata)
        model = onnx.load(out)
        last = next(one for one in model.graph.initializer if list(one.dims)[:1] == [3] and len(one.dims) == 4)
        values = onnx.numpy_helper.to_array(last)[[1, 0, 2]]
        last.CopyFrom(onnx.numpy_helper.from_array(values, last.name))
        out.write_bytes(model.SerializeToString())

    monkeypatch.setattr(front, "write_onnx", permuted)
    _refused(run, tmp_path, capsys)


@pytest.mark.slow
def test_a_wrong_epsilon_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved("CycleGAN", tmp_path)
    monkeypatch.setattr(instance_norm, "EPSILON", 1e-3)
    _refused(run, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.network
def test_an_outlier_in_the_calibration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = saved("CycleGAN", tmp_path), tmp_path / "fast.onnx"
    good = Exporter(str(run), ExportOptions(check=2, calibration=3, int8="speed", max_lpips=0.5)).onnx(out)
    distance = good.figures.similarity["lpips/vgg16"]
    assert onnx.load(out).metadata_props[-1].value == "speed"
    out.unlink()
    drawn = Samples.__call__

    def with_outlier(samples: Samples, count: int, *, seed: int, first: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        for number, one in enumerate(drawn(samples, count, seed=seed, first=first)):
            yield {name: value * (300 if first and not number else 1) for name, value in one.items()}

    monkeypatch.setattr(Samples, "__call__", with_outlier)
    asked = ["export", str(run), "--onnx", str(out), "--int8", "speed", "--check", "2", "--calibrate", "3"]
    assert main([*asked, "--max-lpips", str(2 * distance)]) == 2
    (*_, last) = capsys.readouterr().err.strip().splitlines()
    assert last.startswith(f"gesso: {out}: not written, the export is too far from the run: ")
    assert last.endswith("(--max-lpips)")
    assert "psnr" in last
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".safetensors", ".yaml"]


def _refused(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out" / "cycle.onnx"
    out.parent.mkdir()
    out.write_bytes(b"an earlier one")
    assert main(["export", str(run), "--onnx", str(out), "--check", "2"]) == 2
    (*_, last) = capsys.readouterr().err.strip().splitlines()
    assert last.startswith(f"gesso: {out}: not written, the export is not the run: largest difference")
    assert "0.0001 at most" in last
    # What stood there before still does, and nothing else.
    assert [file.name for file in out.parent.iterdir()] == ["cycle.onnx"]
    assert out.read_bytes() == b"an earlier one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no format: name a file with --onnx, --pt2 or --safetensors, or a folder with --web"),
        (["--onnx", "a.pt"], "a.pt: name the file to write with the ending .onnx"),
        (["--onnx", "a.onnx", "--part", "encoder"], "part encoder: a VAE exports decoder, reconstruction"),
        (["--onnx", "a.onnx", "--size", "0"], "--size 0: name one side in pixels, or HxW"),
        (["--onnx", "a.onnx", "--check", "0"], "--check 0: 1 sample or more is compared with the run's"),
        (["--pt2", "a.pt2", "--int8", "speed"], "--int8 is a form of the ONNX file: name one with --onnx"),
    ],
)
def test_mistakes_in_one_line(
    vae: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(vae), *arguments]) == 2
    assert capsys.readouterr().err.strip() == f"gesso: {message}"
