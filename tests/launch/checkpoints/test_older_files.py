"""Runs, configs and exported weights that were written before the rooms moved still serve.

``tests/fixtures/before_the_house`` holds what the code of that time wrote: a DCGAN and a VAE after 24 images, and the
pictures that it generated with them. Its configs name classes by the files in which they lay then, and options flat.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gesso.cli.main import main
from launch.checkpoints import layout
from launch.inference.loading import load_family
from launch.runs.folder import RunFolder
from launch.training.training import Training

OLD = Path(__file__).parents[2] / "fixtures" / "before_the_house"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(OLD, tmp_path / "old", symlinks=True))


@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_an_older_run_generates_the_same_pictures(name: str) -> None:
    module, origin = load_family(OLD / name)
    assert origin["average"]
    assert origin["images_seen"] == 24
    with torch.no_grad():
        made = module.generate(torch.arange(4), seed=0)  # type: ignore[operator]
    torch.testing.assert_close(made, load_file(OLD / "samples.safetensors")[name], atol=1e-6, rtol=0)


def test_an_older_export_generates_the_same_pictures() -> None:
    module, _ = load_family(OLD / "dcgan.safetensors")
    with torch.no_grad():
        made = module.generate(torch.arange(4), seed=0)  # type: ignore[operator]
    torch.testing.assert_close(made, load_file(OLD / "samples.safetensors")["dcgan"], atol=1e-6, rtol=0)


@pytest.mark.process
@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_an_older_run_resumes(name: str, old: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = layout.read(OLD / name / "checkpoints" / "000000000024")
    arguments = [f"--data.path={old / 'digits'}", "--run.kimg=0.032"]
    assert main(["fit", "--resume", str(old / name), *arguments]) == 0
    last = RunFolder(old / name).last_checkpoint
    assert last is not None
    after = layout.read(last)
    assert after["gesso"]["images_seen"] == 32
    assert after["ShardData"]["position"] == 32
    assert after["state_dict"].keys() == before["state_dict"].keys()
    # Adam went on from its moments: a fresh one would have counted one step.
    for network, state in before["optimizer_states"].items():
        steps = {name: entry["step"] for name, entry in state["state"].items()}
        assert {n: float(e["step"]) for n, e in after["optimizer_states"][network]["state"].items()} == {
            n: float(step) + 1 for n, step in steps.items()
        }
    assert "report it" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_the_command_line_takes_an_older_run(name: str, old: Path, tmp_path: Path) -> None:
    run = str(old / name)
    grid = tmp_path / "grid.png"
    assert main(["generate", run, "--num", "4", "--grid", str(grid)]) == 0
    assert np.asarray(Image.open(grid)).std() > 0
    assert main(["checkpoint", "show", run]) == 0
    assert main(["checkpoint", "verify", run]) == 0
    assert main(["checkpoint", "export", run, str(tmp_path / "weights.safetensors")]) == 0
    assert main(["report", run]) == 0


@pytest.mark.network
def test_an_older_run_is_evaluated(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--metrics", "fid", "--extractor", "mobilenet_v2", "--num-samples", "10"]
    assert main(["evaluate", str(old / "dcgan"), "--data", str(old / "digits"), *arguments]) == 0
    assert '"fid/mobilenet_v2"' in capsys.readouterr().out


@pytest.mark.parametrize(("name", "tensors"), [("adain", 18), ("fast", 49)])
@pytest.mark.slow
def test_an_older_config_of_a_style_family_is_understood(name: str, tensors: int, tmp_path: Path) -> None:
    model = Training(OLD / "configs" / f"{name}.yaml", folder=tmp_path).build().model
    # As many as a checkpoint of that time holds.
    assert len(list(model.parameters())) == tensors
    assert model.weights["style"] == 10
