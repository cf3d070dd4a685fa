"""What is published stands alone: the autoencoder of latents lies beside, and no config names a place elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from launch.checkpoints.export import export, rebuild
from launch.inference.loading import load_family
from launch.publishing.folder import AUTOENCODER, WEIGHTS, write_weights
from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.catalogue import family
from lightning_modules.core.family import ImageFamily
from lightning_modules.diffusion.consistency import ECT
from lightning_modules.diffusion.flow import Flow
from lightning_modules.kinds.latents import LatentOptions
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions
from lightning_modules.networks.denoisers import DenoiserOptions
from tests.launch.export.families import tiny

SMALL = DenoiserOptions(architecture="ddpmpp", width=32, multipliers=(1,), blocks=1, attention_resolutions=())


@pytest.fixture
def latent_flow(tmp_path: Path) -> ImageFamily:
    """A flow on latents, with its autoencoder; nothing else knows where that is."""
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        resolution=16,
        latent_channels=2,
        perceptual_weight=0.0,
        adversarial_weight=0.0,
        autoencoder=KLAutoencoderOptions(32, (1, 1), 1),
    )
    file = tmp_path / "elsewhere" / "run.safetensors"
    file.parent.mkdir()
    export(autoencoder, file, origin={"images_seen": 1000})
    latents = LatentOptions(str(file), autoencoder.encoder_checksum(), (0.5, -1.0), (2.0, 1.0), 16, 3)
    module = Flow(resolution=8, channels=2, latents=latents, network=SMALL)
    module.take_autoencoder(load_family(file)[0])
    return module.requires_grad_(False).eval()


def test_a_model_of_latents_brings_its_autoencoder(latent_flow: ImageFamily, tmp_path: Path) -> None:
    index = torch.arange(2)
    expected = latent_flow.generate(index, seed=3)
    assert expected.shape == (2, 3, 16, 16)
    made = tmp_path / "made"
    made.mkdir()
    write_weights(latent_flow, made, average=True)
    assert str(tmp_path) not in (made / "model.yaml").read_text() + (made / "autoencoder.yaml").read_text()
    shutil.rmtree(tmp_path / "elsewhere")
    given = made.rename(tmp_path / "given")
    module, origin = load_family(given / WEIGHTS)
    assert origin["average"]
    assert torch.equal(module.generate(index, seed=3), expected)

    options = yaml.safe_load((given / "model.yaml").read_text())
    for name in ("../autoencoder.safetensors", "inner/autoencoder.safetensors"):
        options["model"]["init_args"]["latents"]["autoencoder"] = name
        (given / "model.yaml").write_text(yaml.safe_dump(options))
        with pytest.raises(ValueError, match=r"latents.autoencoder is .*; it must be a path from /, or lie beside"):
            load_family(given / WEIGHTS)
    (given / AUTOENCODER).unlink()
    options["model"]["init_args"]["latents"]["autoencoder"] = AUTOENCODER
    (given / "model.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(ValueError, match="autoencoder.safetensors: missing"):
        load_family(given / WEIGHTS)


def test_teachers_and_pictures_name_no_place(tmp_path: Path) -> None:
    student = ECT(resolution=8, channels=1, network=SMALL, teacher=f"{tmp_path}/teacher")
    stylist = family("FastStyle").from_options(
        {"resolution": 32, "styles": [f"{tmp_path}/a.png", f"{tmp_path}/b.png"], "network": {"kind": "light"}}
    )
    for module in (student, stylist, tiny("DCGAN")):
        folder = tmp_path / type(module).__name__
        folder.mkdir()
        write_weights(module, folder, average=False)
        assert str(tmp_path) not in (folder / "model.yaml").read_text()
        again, averaged = rebuild(folder / WEIGHTS)
        assert not averaged
        assert again.own_styles == module.own_styles
