"""Trainings that begin with another run, samples made and scored in other ways: through the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import gesso
from gesso.cli.main import main
from launch.checkpoints import layout
from launch.inference.loading import load_family
from launch.inference.model import Model

pytestmark = pytest.mark.slow

TINY = [
    *("--model.network.width=8", "--model.network.patch=4", "--data.global_batch_size=16", "--run.name=tiny"),
    *("--run.kimg=0.064", "--run.wandb=disabled", "--trainer.accelerator=cpu", "--trainer.precision=32-true"),
    *("--evaluation.metrics=[]", "--previews.every_kimg=0.064", "--previews.nearest=0", "--checkpoints.monitor=null"),
    *("--model.sampling.steps=2", "--checkpoints.every_kimg=0.032"),
]


@pytest.fixture(autouse=True)
def fresh_identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GESSO_RUN", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    yield
    os.environ.pop("GESSO_RUN", None)


@pytest.fixture(scope="module")
def teacher(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teacher")
    assert main(["fit", "--config=mnist-edm", *TINY, f"--data.path={shards}", f"--run.root={root}"]) == 0
    os.environ.pop("GESSO_RUN", None)
    (run,) = root.iterdir()
    return run


def weights(run: Path, key: str = "state_dict") -> dict[str, torch.Tensor]:
    return layout.read(run / "checkpoints" / "last")[key]


def test_a_student_begins_with_its_teacher_and_resumes_without_it(
    teacher: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy, symlinks=True)
    student = [*TINY, f"--data.path={shards}", f"--run.root={tmp_path / 'runs'}", f"--model.teacher={copy}"]
    # At a learning rate of 0 it stays the teacher: the averaged weights.
    argv = ["fit", "--config=mnist-edm-fewstep", *student, "--model.optimizer.lr=0", "--model.optimizer.warmup_kimg=0"]
    assert main(argv) == 0
    (run,) = (tmp_path / "runs").iterdir()
    for name, value in load_family(teacher)[0].network.state_dict().items():
        assert torch.equal(weights(run)[f"network.{name}"], value)
    shutil.rmtree(copy)
    os.environ.pop("GESSO_RUN", None)
    assert main(["fit", "--resume", str(run), "--run.kimg=0.096"]) == 0
    os.environ.pop("GESSO_RUN", None)
    capsys.readouterr()
    # What is no teacher is one line, and leaves nothing behind.
    before = sorted((tmp_path / "runs").iterdir())
    for path, said in (
        (copy, "no such run or checkpoint"),
        (teacher, "it has another network (network.width: 8 -> 16)"),
    ):
        options = [*student[:-1], f"--model.teacher={path}"] + ["--model.network.width=16"] * (path == teacher)
        assert main(["fit", "--config=mnist-edm-fewstep", *options]) != 0
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "teacher" in line]
        assert line.startswith(f"gesso: --model.teacher {path}: {said}")
        assert sorted((tmp_path / "runs").iterdir()) == before
    # Without a teacher there is nothing to distil; consistency models may begin from nothing, and say so.
    assert main(["fit", "--config=mnist-edm-progressive", *student[:-1]]) == 2
    said = (
        "gesso: --model.teacher: name the run that a ProgressiveDistillation begins with; it learns from nothing else"
    )
    assert said in capsys.readouterr().err.splitlines()
    assert sorted((tmp_path / "runs").iterdir()) == before
    assert main(["fit", "--config=mnist-edm-fewstep", *student[:-1], "--run.kimg=0.016"]) == 0
    assert "--model.teacher names no run: an ECT begins with random weights" in capsys.readouterr().err


def test_samples_of_another_sampler_are_scored_and_told_apart(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [str(teacher), "--num", "4", "--seed", "3"]
    assert main(["generate", *common, "--folder", str(tmp_path / "own")]) == 0
    options = ["--sampler", "dpmpp-2m", "--steps", "3", "--guidance", "2"]
    assert main(["generate", *common, "--folder", str(tmp_path / "other"), *options]) == 0
    one, other = ((tmp_path / name / "000002.png").read_bytes() for name in ("own", "other"))
    assert one != other
    # From Python alike, for once.
    model = Model.load(teacher, device="cpu")
    plain = model.generate(4, seed=3)
    again = model.generate(4, seed=3, sampler="dpmpp-2m", steps=3, guidance=2.0)
    assert not torch.equal(plain, again)
    assert torch.equal(model.generate(4, seed=3), plain)
    scores = {
        steps: gesso.evaluate(
            teacher, metrics="fid", extractor="mobilenet_v2", num_samples=8, sampling={"steps": steps}
        )
        for steps in (1, 3)
    }
    assert scores[1] != scores[3]
    capsys.readouterr()
    assert main(["generate", *common, "--grid", str(tmp_path / "x.png"), "--sampler", "hein"]) == 2
    assert "gesso: sampler is 'hein'; it must be one of euler" in capsys.readouterr().err


def test_pictures_are_edited_and_filled_in(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    Image.linear_gradient("L").resize((40, 32)).save(picture)
    white = Image.new("L", (32, 32), 0)
    white.paste(255, (16, 0, 32, 32))
    white.save(mask)
    edited = ["generate", str(teacher), "--from", str(picture), "--num", "2", "--label", "3"]
    assert main([*edited, "--mask", str(mask), "--folder", str(tmp_path / "filled")]) == 0
    left = Image.open(picture).crop((4, 0, 36, 32)).crop((0, 0, 16, 32)).tobytes()
    for number in (0, 1):
        filled = Image.open(tmp_path / "filled" / f"00000{number}.png")
        assert filled.crop((0, 0, 16, 32)).tobytes() == left
    assert main([*edited, "--strength", "0.5", "--folder", str(tmp_path / "edited")]) == 0
    capsys.readouterr()
    white.paste(255, (0, 0, 32, 32))
    white.save(mask)
    for options, said in (
        (["--mask", str(mask)], "is all white: all would be made anew"),
        (["--mask", str(mask), "--strength", "0.5"], "leave --strength out"),
        (["--resamples", "2"], "--resamples is for filling in: name the --mask"),
        (["--strength", "2"], "strength 2.0: choose 0"),
    ):
        assert main([*edited, *options, "--folder", str(tmp_path / "refused")]) == 2
        assert said in capsys.readouterr().err
    assert main(["generate", str(teacher), "--mask", str(mask)]) == 2
    assert "--mask is of a picture: name it with --from" in capsys.readouterr().err


def test_a_preview_shows_the_way_out_of_the_noise(teacher: Path) -> None:
    assert {path.name.rpartition("-")[0] for path in (teacher / "samples").iterdir()} >= {"", "denoising", "real"}
    info = json.loads((teacher / "run.json").read_text())
    assert (info["family"], info["state"]) == ("EDM", "finished")
