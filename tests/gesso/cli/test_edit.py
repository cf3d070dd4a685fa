"""`gesso directions`, `edit` and `project`, on the export of a tiny StyleGAN2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gesso.cli.main import main
from launch.checkpoints.export import export
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import GeneratorOptions
from tests.w_spaces import exported, tiny


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(exported(tmp_path, tiny(num_classes=2)))


def pixels(file: str) -> np.ndarray:
    return np.asarray(Image.open(file))


def error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_directions_are_found_and_followed(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["directions", run, "--method", "sefa", "--num", "2", "--samples", "100", "--layers", "0-3"]) == 0
    assert main(["directions", run, "--method", "pca", "--samples", "100"]) == 0
    out = capsys.readouterr().out
    assert "sefa-1: eigenvalue" in out
    assert "pca-7: share of the variance" in out
    scoring = ["directions", run, "--scorer", "brightness", "slant", "--samples", "200", "--out", "scored.safetensors"]
    assert main([*scoring, "--without", "sefa-directions.safetensors:1", "--apart"]) == 0
    assert "slant: correlation with the score" in capsys.readouterr().out

    # By 0, the picture of `gesso generate`.
    assert main(["generate", run, "--num", "5", "--label", "1", "--seed", "4", "--grid", "grid.png"]) == 0
    same = ["edit", run, "--direction", "pca-directions.safetensors:3", "--num", "5", "--label", "1", "--seed", "4"]
    assert main([*same, "--amount", "0", "--out", "edited.png"]) == 0
    assert np.array_equal(pixels("grid.png"), pixels("edited.png"))
    assert main([*same, "--amount", "-2", "2", "--out", "edited.png"]) == 0
    assert main([*same, "--amount", "-2", "0", "2", "--animate", "--out", "moving.webp"]) == 0
    assert Image.open("moving.webp").n_frames == 4  # type: ignore[attr-defined]


def test_pictures_are_mixed_truncated_and_walked_between(run: str) -> None:
    assert main(["edit", run, "--mix", "0-2", "--num", "4", "--out", "mixed.png"]) == 0
    assert main(["edit", run, "--truncations", "1", "0.5", "0", "--num", "3", "--out", "truncated.png"]) == 0
    assert main(["edit", run, "--walk", "3", "--num", "2", "--out", "walk.gif"]) == 0
    assert pixels("mixed.png").shape == pixels("truncated.png").shape
    assert Image.open("walk.gif").n_frames == 6  # type: ignore[attr-defined]


@pytest.mark.network
def test_a_projected_picture_is_edited(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save("photo.png")
    assert main(["project", "photo.png", "--run", run, "--steps", "2", "--plus", "--label", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("LPIPS ")
    assert out[1:] == ["photo-projected.safetensors", "photo-projected.png", "photo-projected-sheet.png"]
    assert main(["directions", run, "--method", "pca", "--samples", "100"]) == 0
    edit = ["edit", run, "--direction", "pca-directions.safetensors", "--from", "photo-projected.safetensors"]
    assert main([*edit, "--amount", "0", "--out", "same.png"]) == 0
    # The grid shows each pixel 38 times.
    assert np.array_equal(pixels("same.png")[2:610:38, 2:610:38], pixels("photo-projected.png"))
    assert "is the picture itself" in error(
        ["project", "photo-projected.png", "--run", run, "--out", "photo-projected.safetensors"], capsys
    )


def test_what_cannot_be_is_said_in_one_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(exported(tmp_path, tiny(seed=1, num_classes=2), "other"))
    export(
        DCGAN(resolution=32, channels=1, generator=GeneratorOptions(width=8)),
        tmp_path / "dcgan.safetensors",
        origin={"images_seen": 1},
    )
    assert main(["directions", run, "--method", "sefa", "--samples", "50", "--num", "1"]) == 0
    file = "sefa-directions.safetensors"
    along = ["edit", run, "--direction", file]
    for arguments, expected in (
        (["directions", "dcgan.safetensors", "--method", "sefa"], "a DCGAN has no latent space W"),
        (["project", "p.png", "--run", "dcgan.safetensors"], "a DCGAN has no latent space W"),
        (["edit", "dcgan.safetensors", "--mix", "0-1"], "a DCGAN has no latent space W"),
        (["edit", other, "--direction", file], "directions in W of another generator"),
        (["edit", run, "--direction", "none"], "none: no such file of directions"),
        (["project", "p.png", "--run", run], "p.png: no such picture"),
        (["project", "p.png", "--run", run, "--steps", "0"], "--steps must be 1 or more"),
        ([*along, "--layers", "9"], "this generator has 0 to 5"),
        ([*along, "--from", file], "holds no latents in W"),
        ([*along, "--from", file, "--num", "2"], "--num is of samples"),
        ([*along, "--label", "2"], "--label 2: the model has 2 classes"),
        ([*along, "--animate", "--out", "a.jpg"], "an animation is a .webp, .gif or .png"),
        (["edit", run, "--mix", "0", "--amount", "1"], "--amount is of a direction"),
        (["edit", run, "--truncations", "2"], "truncation_psi"),
        (["directions", run, "--scorer", "age"], "no scorer 'age'"),
        (["directions", run, "--method", "pca", "--num", "9"], "9 directions: there can be 1 to 8"),
        (["directions", run, "--method", "pca", "--share", "0.1"], "--share is for --scorer"),
        (["directions", run, "--scorer", "slant", "--share", "0.7"], "--share 0.7: must be more than 0"),
        (["directions", run, "--method", "sefa", "--out", "a.pt"], "with the ending .safetensors"),
    ):
        assert expected in error(arguments, capsys), arguments


def test_amounts_may_be_negative(run: str) -> None:
    assert main(["directions", run, "--method", "sefa", "--samples", "50", "--num", "1"]) == 0
    assert main(["edit", run, "--direction", "sefa-directions.safetensors", "--amount", "-1.5", "--num", "1"]) == 0
    assert torch.tensor(pixels("edited-0.png")).numel() > 0
