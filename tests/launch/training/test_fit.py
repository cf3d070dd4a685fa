"""Whole runs through the command line: the run folder, exact resumption after real Ctrl-Cs, bad input."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gesso.cli.main import main
from launch.checkpoints import layout
from launch.runs.metrics import read_rows
from tests.launch.identity import assert_identical, curve, training_state
from tests.launch.offline import wandb_runs
from tests.waiting import wait_until

TINY = {
    "mnist-dcgan": [
        *("--model.generator.width=8", "--model.discriminator.width=8", "--model.latent_dim=8"),
        *("--model.r1_interval=4", "--model.discriminator.spectral_norm=true"),
    ],
    "mnist-vae": ["--model.autoencoder.width=8", "--model.latent_dim=8"],
}


def arguments(recipe: str, shards: Path, root: Path, *more: str) -> list[str]:
    """A training of a few seconds."""
    return [
        f"--config={recipe}",
        *TINY[recipe],
        f"--data.path={shards}",
        "--data.global_batch_size=16",
        f"--run.root={root}",
        "--run.name=tiny",
        "--run.kimg=3.2",
        "--run.log_every_kimg=0.4",
        "--run.wandb=disabled",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--evaluation.metrics=[]",
        "--evaluation.every_kimg=1.6",
        "--previews.every_kimg=1.6",
        "--checkpoints.every_kimg=0.8",
        "--checkpoints.monitor=null",
        *more,
    ]


@pytest.fixture(autouse=True)
def fresh_identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each run of the command line chooses a folder of its own, as in a process of its own."""
    monkeypatch.delenv("GESSO_RUN", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    yield
    os.environ.pop("GESSO_RUN", None)


def fit(*argv: str) -> Path:
    """Trains; returns the folder of the run that this made or went on with."""
    assert main(["fit", *argv]) == 0
    assert "GESSO_RUN" not in os.environ
    roots = [Path(a.partition("=")[2]) for a in argv if a.startswith("--run.root=")]
    return max(roots[0].iterdir(), key=lambda path: path.stat().st_mtime) if roots else Path(argv[1])


def test_without_wandb_it_is_never_imported(shards: Path, tmp_path: Path) -> None:
    # A broken installation of it must not hide how a training ended: there, an import raises.
    program = (
        "import sys; sys.modules['wandb'] = None; from gesso.cli.main import main; code = main(sys.argv[1:]); "
        "assert sys.modules['wandb'] is None; sys.exit(code)"
    )
    short = ["--run.kimg=0.032", "--evaluation.every_kimg=1", "--previews.every_kimg=1", "--checkpoints.every_kimg=1"]
    argv = ["fit", *arguments("mnist-vae", shards, tmp_path, *short)]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "finished 0.0 kimg" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["mnist-dcgan", "mnist-vae"])
def test_three_segments_with_two_ctrl_c_equal_one(recipe: str, shards: Path, tmp_path: Path) -> None:
    whole = fit(*arguments(recipe, shards, tmp_path / "whole"))
    draw = random.Random(recipe)
    command = [sys.executable, "-m", "gesso.cli.main", "fit"]
    run, code = None, None
    for fraction in (draw.uniform(0.1, 0.4), draw.uniform(0.5, 0.8)):
        argv = ["--resume", str(run)] if run else arguments(recipe, shards, tmp_path / "parts")
        process = subprocess.Popen([*command, *argv], stderr=subprocess.PIPE, text=True)
        wait_for_images(tmp_path / "parts", round(3200 * fraction), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        code = process.returncode
        assert code == 130, errors
        (run,) = (tmp_path / "parts").iterdir()
        assert f"go on with: gesso fit --resume {run}" in errors
        info = json.loads((run / "run.json").read_text())
        assert info["state"] == "interrupted"
        assert 3200 * fraction <= info["images_seen"] < 3200
        assert (run / "report.html").is_file()
    assert run is not None
    assert fit("--resume", str(run)) == run
    assert json.loads((run / "run.json").read_text())["restarts"] == 2
    assert_identical(training_state(run), training_state(whole))
    assert curve(run) == curve(whole)
    assert training_state(run)["gesso"]["images_seen"] == 3200


def wait_for_images(root: Path, images: int, process: subprocess.Popen[str]) -> None:
    """Until the run under ``root`` has logged that many images."""

    def logged() -> bool:
        assert process.poll() is None, f"training ended before {images} images: {process.poll()}"
        return any(json.loads(file.read_text()).get("images_seen", 0) >= images for file in root.glob("*/run.json"))

    wait_until(logged, f"{images} images", every=0.01)


@pytest.mark.slow
def test_a_run_folder_tells_the_whole_story(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(
        *arguments("mnist-dcgan", shards, tmp_path),
        "--run.wandb=offline",
        "--evaluation.metrics=[fid,kid,is,prdc]",
        "--evaluation.num_samples=40",
        "--evaluation.reference_samples=60",
        "--checkpoints.monitor=fid/mobilenet_v2",
    )
    info = json.loads((run / "run.json").read_text())
    assert (info["state"], info["family"], info["images_seen"], info["restarts"]) == ("finished", "DCGAN", 3200, 0)
    assert info["versions"]["torch"] == torch.__version__.partition("+")[0]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["generator"]["width"] == 8
    assert config["model"]["init_args"]["loss"] == "non_saturating"

    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    seen: dict[str, list[int]] = {}
    for row in rows:
        seen.setdefault(row["name"], []).append(int(row["images_seen"]))
        assert np.isfinite(float(row["value"]))
    assert seen["loss/generator/loss"] == list(range(400, 3201, 400))
    names = {f"{name}/mobilenet_v2" for name in ("fid", "kid", "kid_std", "is", "precision", "recall", "coverage")}
    assert names <= seen.keys()
    assert seen["fid/mobilenet_v2"] == [1600, 3200]
    assert "val/real_logits" in seen

    for name in ("000000001600", "000000003200", "interpolation-000000003200"):
        grid = Image.open(run / "samples" / f"{name}.png")
        assert min(grid.size) > 200
        assert np.asarray(grid).std() > 5
    assert {"best", "last"} <= {file.name for file in (run / "checkpoints").iterdir()}
    page = (run / "report.html").read_text()
    assert "finished" in page
    assert "fid" in page.lower()
    wait_until(lambda: {identity for identity, _ in wandb_runs(run)} == {info["wandb_id"]}, "W&B's writing", seconds=60)

    capsys.readouterr()
    assert main(["generate", str(run), "--num", "9", "--seed", "5", "--folder", str(tmp_path / "made")]) == 0
    files = sorted((tmp_path / "made").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(9)]
    assert Image.open(files[0]).size == (32, 32)
    first = [file.read_bytes() for file in files]
    assert (
        main(["generate", str(run), "--num", "9", "--seed", "5", "--folder", str(tmp_path / "again"), "--batch-size=4"])
        == 0
    )
    assert_close_pictures(first, sorted((tmp_path / "again").iterdir()))
    assert main(["generate", str(run), "--num", "16", "--grid", str(tmp_path / "grid.png")]) == 0
    capsys.readouterr()
    (tmp_path / "photo.png").write_bytes(b"mine")
    for options, said in (
        (["--grid", str(tmp_path / "photo.png")], "photo.png: is there already, and gesso has not made it"),
        (["--grid", ""], "--grid is empty: name a file"),
        (["--folder", ""], "--folder is empty: name a folder"),
    ):
        assert main(["generate", str(run), *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert main(["generate", str(run), "--num", "5", "--interpolate", str(tmp_path / "path.png")]) == 0
    assert main(["checkpoint", "verify", str(run)]) == 0
    assert "whole; 4 files" in capsys.readouterr().out
    assert main(["checkpoint", "show", str(run)]) == 0
    shown = capsys.readouterr().out
    for fact in ("family       DCGAN", "3,200 in 200 steps", f"W&B id       {info['wandb_id']}", "learning rate"):
        assert fact in shown
    exported = tmp_path / "model.safetensors"
    assert main(["checkpoint", "export", str(run), str(exported)]) == 0
    assert yaml.safe_load(exported.with_suffix(".yaml").read_text())["model"]["class_path"] == "DCGAN"
    exported_grid = tmp_path / "exported.png"
    assert main(["generate", str(exported), "--num", "16", "--grid", str(exported_grid)]) == 0
    assert exported_grid.read_bytes() == (tmp_path / "grid.png").read_bytes()
    assert main(["generate", str(run), "--label", "10"]) == 2
    assert "--label 10: the model has 10 classes" in capsys.readouterr().err

    small = ["--num-samples", "40", "--reference-samples", "60", "--extractor", "mobilenet_v2"]
    assert main(["evaluate", str(run), *small, "--metrics", "fid", "kid"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 40
    assert result["reference"] == {"name": result["reference"]["name"], "split": "train", "images": 60, "size": 32}
    last = next(float(row["value"]) for row in reversed(rows) if row["name"] == "fid/mobilenet_v2")
    assert result["fid/mobilenet_v2"] == pytest.approx(last, rel=1e-3)


def assert_close_pictures(first: list[bytes], files: list[Path]) -> None:
    """The same pictures up to one grey level: other batch sizes may round otherwise."""
    import io

    for data, file in zip(first, files, strict=True):
        ours, theirs = (np.asarray(Image.open(source), np.int16) for source in (io.BytesIO(data), file))
        assert np.abs(ours - theirs).max() <= 1


def bad(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Runs the command line; it must end with 2 and one line on stderr, which is returned."""
    capsys.readouterr()
    assert main([*argv]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


def test_bad_input_is_one_line(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = arguments("mnist-dcgan", shards, tmp_path / "runs")
    assert "did you mean mnist-dcgan?" in bad(capsys, "fit", "--config", "mnist-dcgam")
    assert "betaa" in bad(capsys, "fit", *tiny, "--model.betaa=1")
    assert "width" in bad(capsys, "fit", *tiny, "--model.generator.width=wide")
    assert "loss" in bad(capsys, "fit", *tiny, "--model.loss=wassertein")
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere}: no shard set here" in bad(capsys, "fit", *tiny, f"--data.path={nowhere}")
    assert "channels 1, DCGAN was built for 3" in bad(capsys, "fit", *tiny, "--model.channels=3")
    assert "10 classes, DCGAN was built for 7" in bad(capsys, "fit", *tiny, "--model.num_classes=7")
    assert "micro_batches is 3: 16 images of a rank make no 3 equal parts" in bad(
        capsys, "fit", *tiny, "--model.micro_batches=3"
    )
    assert "no run here" in bad(capsys, "fit", "--resume", str(tmp_path))
    assert "no such run or checkpoint" in bad(capsys, "generate", str(nowhere))
    assert "not a gesso checkpoint" in bad(capsys, "generate", str(shards / "manifest.json"))
    assert not (tmp_path / "runs").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_a_refused_resume_changes_nothing(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    often = "--checkpoints.every_kimg=0.04"
    run = fit(*arguments("mnist-vae", shards, tmp_path), "--run.kimg=0.08", often)
    before = contents(run)
    assert main(["fit", "--resume", str(run), "--run.kimg=0.16", "--data.seed=5"]) == 2
    assert "seed was 0, is 5" in capsys.readouterr().err
    assert contents(run) == before
    assert main(["fit", "--resume", str(run)]) == 0
    assert "has finished; to go on, train for longer" in capsys.readouterr().err
    # Other options train nothing there, so that the run's config does not tell of them.
    assert main(["fit", "--resume", str(run), "--data.flip=true", "--run.kimg=0.06"]) == 0
    assert "has finished at 0.08 kimg, so that other options train nothing" in capsys.readouterr().err
    assert contents(run) == before
    # A run whose last checkpoint was deleted has not: it is trained again from the one before.
    last = (run / "checkpoints" / "last").resolve()
    weights = layout.read(last)["state_dict"]
    shutil.rmtree(last)
    assert main(["fit", "--resume", str(run)]) == 0
    assert "has finished" not in capsys.readouterr().err
    again = layout.read(last)["state_dict"]
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


@pytest.mark.slow
def test_what_a_limit_of_the_trainer_ends_has_not_finished(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = arguments("mnist-vae", shards, tmp_path / "runs", "--run.kimg=0.08")
    assert main(["fit", *tiny, "--trainer.max_steps=0"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("gesso: trainer.max_steps lets this training go no further than 0 of 0.08 kimg")
    assert not (tmp_path / "runs").exists(), "a training that never began leaves no folder"

    run = fit(*tiny, "--trainer.max_steps=2")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "trainer.max_steps ended training at 0.032 of 0.08 kimg, saved; go on with: "
        f"gesso fit --resume {run} --trainer.max_steps -1"
    )
    info = json.loads((run / "run.json").read_text())
    assert (info["state"], info["ended_by"], info["images_seen"]) == ("interrupted", "trainer.max_steps", 32)
    before = contents(run)
    assert main(["fit", "--resume", str(run)]) == 2
    assert "trainer.max_steps lets this training go no further" in capsys.readouterr().err
    assert contents(run) == before
    fit("--resume", str(run), "--trainer.max_steps", "-1")
    info = json.loads((run / "run.json").read_text())
    assert (info["state"], info["ended_by"], info["images_seen"]) == ("finished", None, 80)
    assert_identical(training_state(run), training_state(fit(*tiny)))


@pytest.mark.slow
def test_a_longer_training_keeps_what_the_finished_one_measured(shards: Path, tmp_path: Path) -> None:
    # The last validation falls between two of the interval's: a training of 0.16 kimg would not have had it.
    run = fit(*arguments("mnist-vae", shards, tmp_path / "runs", "--run.kimg=0.08", "--evaluation.every_kimg=0.08"))
    measured = [row for row in read_rows(run / "metrics.csv") if row.name.startswith("val/")]
    assert {row.images_seen for row in measured} == {80}
    fit("--resume", str(run), "--run.kimg=0.112", "--evaluation.every_kimg=1")
    assert [row for row in read_rows(run / "metrics.csv") if row.images_seen <= 80][-len(measured) :] == measured


@pytest.mark.slow
def test_checkpoints_of_others_are_refused(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(*arguments("mnist-vae", shards, tmp_path / "vae"), "--run.kimg=0.8")
    tiny = arguments("mnist-dcgan", shards, tmp_path / "gan")
    assert "holds a VAE, the config asks for a DCGAN" in bad(capsys, "fit", *tiny, f"--checkpoint={run}")
    os.environ.pop("GESSO_RUN", None)
    assert "another architecture of VAE" in bad(capsys, "fit", "--resume", str(run), "--model.autoencoder.width=16")


@pytest.mark.slow
def test_two_ranks_measure_what_one_measures(shards: Path, tmp_path: Path) -> None:
    run = fit(*arguments("mnist-dcgan", shards, tmp_path), "--run.kimg=0.8")
    printed = []
    for devices in (1, 2):
        measured = subprocess.run(
            [
                *(sys.executable, "-m", "gesso.cli.main", "validate", "--config", str(run / "config.yaml")),
                *("--checkpoint", str(run), f"--trainer.devices={devices}", "--evaluation.metrics=[fid,kid,is]"),
                *("--evaluation.num_samples=51", "--evaluation.reference_samples=60"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append({line.split()[0]: float(line.split()[1]) for line in measured.stdout.splitlines()})
    one, two = printed
    assert one.keys() == two.keys() >= {"fid/mobilenet_v2", "kid/mobilenet_v2", "is/mobilenet_v2", "val/real_logits"}
    for name in one.keys() - {"val/real_logits"}:
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    # Lightning averages batches, which are cut otherwise on two ranks.
    assert two["val/real_logits"] == pytest.approx(one["val/real_logits"], rel=0.05)
