"""A generating family of three networks in a package of its own, from installation to sweep: what the page shows."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from scipy.signal import convolve2d
from torch import Tensor

from launch.checkpoints import layout
from tests.elsewhere import Elsewhere, assert_page_shows

BATCH = 16
#: A second of training; the learning rate falls until 96 images, whatever the length.
SMALL = (
    *("--model.width=8", "--model.autoencoder_optimizer.warmup_kimg=0.016"),
    *("--model.autoencoder_optimizer.decay_kimg=0.096", f"--data.global_batch_size={BATCH}", "--data.workers=0"),
    *("--run.wandb=disabled", "--trainer.accelerator=cpu", "--ema.half_life_kimg=0.05"),
    *("--evaluation.metrics=[sharpness]", "--evaluation.num_samples=16", "--checkpoints.monitor=sharpness"),
)
#: On two ranks, with a checkpoint after every step.
FIT = (
    *("fit", "--config", "teacher-digits", *SMALL, "--trainer.devices=2"),
    *("--evaluation.every_kimg=0.032", "--previews.every_kimg=0.064"),
    *("--checkpoints.every_kimg=0.016", "--checkpoints.keep_last=100", "--run.log_every_kimg=0.032"),
)

pytestmark = pytest.mark.timeout(900)


def test_the_page_shows_the_package() -> None:
    assert_page_shows("A generating family", "mean_teacher")


@pytest.fixture(scope="module")
def elsewhere(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """With a shard set of 200 digits."""
    user = Elsewhere(tmp_path_factory.mktemp("elsewhere"), "mean_teacher")
    (user.folder / "digits").mkdir()
    for file in sorted(digits.glob("*/*.png"))[::5]:
        shutil.copy(file, user.folder / "digits")
    user.gesso("shards", "build", "digits", "shards/mnist", "--size", "32", "--format", "png", "--workers", "1")
    return user


@pytest.fixture(scope="module")
def ddp(elsewhere: Elsewhere) -> Path:
    """A run of 4 steps."""
    elsewhere.gesso(*FIT, "--run.name=ddp", "--run.kimg=0.064")
    return elsewhere.run("ddp")


@pytest.fixture(scope="module")
def zero2(elsewhere: Elsewhere) -> Path:
    """A run of 6 steps."""
    elsewhere.gesso(*FIT, "--run.name=zero2", "--run.kimg=0.096", "--trainer.strategy=zero2")
    return elsewhere.run("zero2")


def saved(run: Path, step: int) -> dict[str, Any]:
    """The checkpoint after so many steps."""
    return layout.read(run / "checkpoints" / f"{step * BATCH:012d}")


def logged(run: Path, name: str) -> list[float]:
    """All values of a metric in metrics.csv; there is one."""
    with (run / "metrics.csv").open() as table:
        found = [float(row["value"]) for row in csv.DictReader(table) if row["name"] == name]
    assert found
    return found


def assert_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Weights and averages of two checkpoints, each tensor as a whole within fp32's rounding."""
    for ours, theirs in zip(named(found), named(wanted), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            away = (ours[name].double() - value.double()).norm().item()
            assert away <= 3e-4 * value.double().norm().item() + 1e-7 * value.numel() ** 0.5, name


def named(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], ...]:
    averages: dict[str, dict[str, Tensor]] = checkpoint["averages"]
    return checkpoint["state_dict"], averages["ema"], averages["teacher"]


@pytest.mark.slow
def test_the_command_line_knows_it(elsewhere: Elsewhere) -> None:
    assert "of the package mean-teacher" in (listed := elsewhere.gesso("recipes"))
    assert "teacher-digits" in listed


@pytest.mark.slow
def test_the_teacher_follows_the_student(ddp: Path) -> None:
    for step in range(2, 5):
        before, now = saved(ddp, step - 1), saved(ddp, step)
        # Half of the old average stays after 5 % of the images seen, as long as that is less than 2,000.
        stays = 0.5 ** (BATCH / (0.05 * step * BATCH))
        teacher = now["averages"]["teacher"]
        assert {name.partition(".")[0] for name in teacher} == {"encoder"}
        for name, mean in teacher.items():
            student = now["state_dict"][name]
            expected = stays * before["averages"]["teacher"][name] + (1 - stays) * student
            torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-7)
        assert any(not torch.equal(mean, now["state_dict"][name]) for name, mean in teacher.items())


@pytest.mark.slow
def test_training_reads_the_teacher(ddp: Path) -> None:
    first, last = saved(ddp, 1), saved(ddp, 4)
    assert any(not torch.equal(first["state_dict"][name], last["state_dict"][name]) for name in first["state_dict"])
    assert min(logged(ddp, "loss/encoder+decoder/consistency")) > 0


@pytest.mark.slow
def test_the_helper_is_in_no_checkpoint(ddp: Path, zero2: Path) -> None:
    for run in (ddp, zero2):
        files = {file.stem: load_file(file) for file in (run / "checkpoints" / "last").glob("*.safetensors")}
        assert {name.partition(".")[0] for name in files["networks"]} == {"encoder", "decoder", "discriminator"}
        assert {name.partition(".")[0] for name in files["averages"]} == {"ema", "teacher"}
        assert {name.partition(".")[0] for name in files["optimizers"]} == {"encoder", "decoder", "discriminator"}
        # VGG16's convolutions are 14.7 million.
        assert sum(tensor.numel() for tensors in files.values() for tensor in tensors.values()) < 1_000_000


@pytest.mark.slow
def test_both_strategies_train_alike_and_one_resumes_the_other(elsewhere: Elsewhere, ddp: Path, zero2: Path) -> None:
    assert_close(saved(zero2, 4), saved(ddp, 4))
    elsewhere.gesso("fit", "--resume", str(ddp), "--trainer.strategy=zero2", "--run.kimg=0.096")
    again = saved(ddp, 6)
    assert again["run"]["strategy"] == "MultiNetworkZeRO"
    assert_close(again, saved(zero2, 6))


@pytest.mark.slow
def test_the_best_checkpoint_is_the_sharpest(ddp: Path) -> None:
    measured = logged(ddp, "sharpness")
    assert len(set(measured)) >= 2
    assert json.loads((ddp / "run.json").read_text())["best"]["value"] == pytest.approx(max(measured), rel=1e-5)


@pytest.mark.slow
def test_it_generates_and_is_evaluated(elsewhere: Elsewhere, ddp: Path) -> None:
    elsewhere.gesso("generate", str(ddp), "--num", "20", "--folder", "made", "--device", "cpu")
    pictures = [np.asarray(Image.open(file)) / 255 for file in sorted((elsewhere.folder / "made").glob("*.png"))]
    assert {picture.shape for picture in pictures} == {(32, 32)}
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    sharpness = np.mean([np.abs(convolve2d(picture, kernel, mode="valid")).mean() for picture in pictures])
    options = ("--metrics", "sharpness", "--num-samples", "20", "--device", "cpu")
    found = json.loads(elsewhere.gesso("evaluate", str(ddp), *options))
    assert found["sharpness"] == pytest.approx(sharpness, rel=1e-5)


@pytest.mark.slow
def test_the_decoders_average_is_exported(elsewhere: Elsewhere, ddp: Path) -> None:
    elsewhere.gesso("checkpoint", "export", str(ddp), "teacher.safetensors")
    exported, average = (
        load_file(elsewhere.folder / "teacher.safetensors"),
        layout.read(ddp / "checkpoints" / "last")["averages"]["ema"],
    )
    assert exported.keys() == average.keys()
    assert all(name.startswith("decoder.") and torch.equal(exported[name], average[name]) for name in average)
    config = yaml.safe_load((elsewhere.folder / "teacher.yaml").read_text())
    assert config["model"]["class_path"] == "MeanTeacher"


@pytest.mark.slow
def test_a_sweep_looks_for_the_sharpest(elsewhere: Elsewhere) -> None:
    (elsewhere.folder / "weights.yaml").write_text("model.perceptual_weight: grid([20.0, 0.0])\n")
    sweep = ("tune", "--config", "teacher-digits", "--space", "weights.yaml", "--metric", "sharpness")
    elsewhere.gesso(*sweep, "--num-samples=1", *SMALL, "--run.kimg=0.096", "--evaluation.every_kimg=0.096")
    (folder,) = (elsewhere.folder / "sweeps").iterdir()
    trials = json.loads((folder / "results.json").read_text())
    assert [trial["state"] for trial in trials] == ["finished"] * 2
    measured = {t["config"]["model.perceptual_weight"]: t["reports"][-1]["metrics"]["sharpness"] for t in trials}
    assert len(set(measured.values())) == 2
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["model"]["init_args"]["perceptual_weight"] == max(measured, key=lambda weight: measured[weight])


@pytest.mark.slow
def test_it_is_submitted(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever cluster this machine knows is not asked.
    monkeypatch.setenv("PATH", "/nowhere")
    job = ("slurm", "submit", "--dry-run", "--trust-paths", "--nodes", "2", "--tasks-per-node", "2", "--time", "60")
    script = elsewhere.gesso(*job, "--", "fit", "--config", "teacher-digits", *SMALL)
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=teacher-digits\n")
    assert not list((elsewhere.folder / "runs").glob("teacher-digits*"))
