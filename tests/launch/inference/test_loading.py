"""Weights that are no numbers, and exports that would take another file's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from launch.checkpoints.export import export
from launch.checkpoints.files import MARKER
from launch.inference import loading
from launch.inference.loading import load_autoencoder, load_family
from lightning_modules.autoencoder.vae import VAE

ORIGIN = {"images_seen": 0, "weights": "raw"}


@pytest.fixture
def vae() -> VAE:
    return VAE.from_options({"resolution": 32, "autoencoder": {"width": 8}, "latent_dim": 4})


def test_weights_that_are_no_numbers_make_no_picture(vae: VAE, tmp_path: Path) -> None:
    export(vae, tmp_path / "vae.safetensors", origin=ORIGIN)
    load_family(tmp_path / "vae.safetensors")
    (network,) = vae.generating_networks()
    name, weight = next(iter(getattr(vae, network).named_parameters()))
    with torch.no_grad():
        weight.view(-1)[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    export(vae, tmp_path / "vae.safetensors", origin=ORIGIN)
    with pytest.raises(
        ValueError, match=rf"vae\.safetensors: 3 weights of {network}\.{name} are infinite or no numbers"
    ):
        load_family(tmp_path / "vae.safetensors")


def test_an_exported_average_holds_no_raw_weights(vae: VAE, tmp_path: Path) -> None:
    for weights in ("average", "raw"):
        file = tmp_path / f"{weights}.safetensors"
        export(vae, file, origin={**ORIGIN, "weights": weights})
        assert load_family(file)[1]["average"] == (weights == "average")
    load_family(tmp_path / "raw.safetensors", average=False)
    with pytest.raises(ValueError, match=r"average\.safetensors: holds averaged weights alone.*leave --raw"):
        load_family(tmp_path / "average.safetensors", average=False)


def test_an_export_takes_no_other_files_place(vae: VAE, tmp_path: Path) -> None:
    precious = tmp_path / "vae.yaml"
    precious.write_text("model: mine\ndata: precious\n")
    with pytest.raises(ValueError, match=r"vae\.yaml: is there, and is not the config of an export"):
        export(vae, tmp_path / "vae.safetensors", origin=ORIGIN)
    assert precious.read_text() == "model: mine\ndata: precious\n"
    assert [file.name for file in tmp_path.iterdir()] == ["vae.yaml"]
    mine = tmp_path / "mine.safetensors"
    save_file({"weight": torch.ones(2)}, mine)
    with pytest.raises(ValueError, match=r"mine\.safetensors: is there, and is not an exported model"):
        export(vae, mine, origin=ORIGIN)
    assert torch.equal(load_file(mine)["weight"], torch.ones(2))


class Latents:
    """A family of latents that were encoded by the autoencoder called ``wanted``."""

    def __init__(self, run: Path, wanted: str) -> None:
        self.run, self.wanted, self.taken = run, wanted, ""

    def autoencoder_run(self) -> str:
        return str(self.run)

    def take_autoencoder(self, module: str) -> None:
        if module != self.wanted:
            raise ValueError("its encoder is not the one")
        self.taken = module


def test_an_autoencoder_that_was_trained_further_or_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    for images in (8, 16, 24):
        (run / "checkpoints" / f"{images:012d}").mkdir(parents=True)
        (run / "checkpoints" / f"{images:012d}" / MARKER).touch()
    (run / "checkpoints" / "last").symlink_to(f"{24:012d}")

    def name_of(path: str) -> tuple[str, None]:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such run or checkpoint")
        return (f"{24:012d}" if Path(path) == run else Path(path).name), None

    monkeypatch.setattr(loading, "load_family", name_of)
    for images in (24, 8):
        family: Any = Latents(run, f"{images:012d}")
        load_autoencoder(family)
        assert family.taken == f"{images:012d}"
    unknown: Any = Latents(run, "another")
    with pytest.raises(ValueError, match=f"^--model.latents.autoencoder {run}: its encoder is not the one"):
        load_autoencoder(unknown)
    moved: Any = Latents(tmp_path / "away", "another")
    with pytest.raises(FileNotFoundError, match="away: no such run or checkpoint; if it was moved, put a link in its"):
        load_autoencoder(moved)
