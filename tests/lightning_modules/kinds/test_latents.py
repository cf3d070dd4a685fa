"""Between latents of standard deviation 1 and pictures: the way there and back, and the autoencoders it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.abilities import BatchSpec, CannotDo
from lightning_modules.core.options import constructor_options, plain
from lightning_modules.diffusion.ddpm import DDPM
from lightning_modules.diffusion.edm import EDM
from lightning_modules.diffusion.flow import Flow
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.kinds.latents import LatentOptions, LatentSpace
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions
from tests.lightning_modules.diffusion.families import tiny
from tests.trainers import bare_trainer

MEAN, STD = (3.0, -2.0), (0.5, 4.0)


def autoencoder(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    small = KLAutoencoderOptions(32, (1, 1), 1)
    options: dict[str, Any] = {"perceptual_weight": 0.0, "adversarial_weight": 0.0}
    return AutoencoderKL(resolution=16, latent_channels=2, autoencoder=small, **options)


def space() -> LatentSpace:
    made = LatentSpace(LatentOptions("runs/kl", autoencoder().encoder_checksum(), MEAN, STD))
    made.take_autoencoder(autoencoder())
    return made


def pictures(count: int = 20) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_way_there_and_back_is_the_autoencoders() -> None:
    module, (mean, std) = autoencoder(), (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        raw = module.encode(pictures())[0]
        latents = space().encode(pictures())
        torch.testing.assert_close(latents, (raw - mean) / std, atol=1e-5, rtol=1e-5)
        made = space().decode(latents)
        torch.testing.assert_close(made, module.reconstruct(pictures()), atol=1e-5, rtol=1e-5)
    assert not made.requires_grad


def test_it_is_no_part_of_a_checkpoint() -> None:
    assert not space().state_dict()
    assert not list(space().parameters())


def test_other_autoencoders_are_refused() -> None:
    with pytest.raises(ValueError, match="is not the one that the latents were encoded with") as caught:
        space().take_autoencoder(autoencoder(1))
    assert "\n" not in str(caught.value)
    with pytest.raises(CannotDo, match="a VAE encodes no pictures into latents"):
        space().take_autoencoder(VAE(resolution=32, latent_dim=2))
    with pytest.raises(RuntimeError, match="there is no autoencoder"):
        LatentSpace(LatentOptions("runs/kl", "abc", MEAN, STD)).decode(torch.zeros(1, 2, 8, 8))
    unknown = LatentSpace(LatentOptions("runs/kl"))
    unknown.take_autoencoder(autoencoder())
    with pytest.raises(RuntimeError, match="not known before training begins"):
        unknown.decode(torch.zeros(1, 2, 8, 8))


def of_latents(kind: type[DenoisingFamily] = Flow, **options: Any) -> DenoisingFamily:
    """A small diffusion model of the autoencoder's latents."""
    named: dict[str, Any] = {"latents": LatentOptions("runs/kl"), "resolution": 8, "channels": 2, **options}
    module = tiny(kind, **named)
    module.sample_with({"steps": 3})
    module.take_latents(
        encoder=autoencoder().encoder_checksum(), mean=MEAN, std=STD, picture_size=16, picture_channels=3
    )
    module.take_autoencoder(autoencoder())
    return module


def test_a_diffusion_model_of_latents_makes_pictures() -> None:
    module = of_latents(num_classes=3)
    assert module.batch_spec() == BatchSpec(channels=2, resolution=8, num_classes=3, latents=True)
    assert module.picture_shape() == (3, 16)
    assert module.example_batch(5)["image"].shape == (5, 4, 8, 8)
    images = module.generate(torch.arange(5), seed=0)
    assert (images.shape, images.dtype) == ((5, 3, 16, 16), torch.float32)
    assert images.abs().max() <= 1
    shown, columns = module.strip(2, seed=0)
    assert shown.shape == (2 * columns, 3, 16, 16)
    # What it makes are latents of that autoencoder.
    assert module.latent_space is not None
    noise = module.noise(torch.arange(5), seed=0)
    made: list[Tensor] = []
    module.to_images = lambda state: made.append(state) or images  # type: ignore[method-assign,func-returns-value]
    module.sample(noise(0), noise, torch.arange(5) % 3)
    torch.testing.assert_close(module.latent_space.decode(made[0]), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [Flow, EDM, DDPM])
def test_it_is_trained_on_draws_and_validated_on_means(kind: type[DenoisingFamily], tmp_path: Path) -> None:
    seen: dict[str, list[Tensor]] = {"losses": [], "held_out_losses": []}

    class Watched(kind):  # type: ignore[misc,valid-type]
        def losses(self, batch: Any) -> Any:
            seen["losses"].append(batch["image"])
            return super().losses(batch)

        def held_out_losses(self, batch: Any) -> Any:
            seen["held_out_losses"].append(batch["image"])
            return super().held_out_losses(batch)

    module = of_latents(Watched)
    moments = torch.cat([torch.full((64, 2, 8, 8), 2.0), torch.full((64, 2, 8, 8), 0.5)], 1)
    batch = {"image": moments, "label": torch.zeros(64).long(), "index": torch.arange(64), "position": 64}
    bare_trainer(tmp_path).fit(module, DataLoader([batch] * 2, batch_size=None), DataLoader([batch], batch_size=None))
    first, second = seen["losses"]
    assert first.shape == (64, 2, 8, 8)
    assert not torch.equal(first, second)
    assert first.mean() == pytest.approx(2, abs=0.05)
    assert first.std() == pytest.approx(0.5, abs=0.05)
    assert all(torch.equal(images, moments[:, :2]) for images in seen["held_out_losses"])


def test_edits_keep_what_is_known_and_know_places_all_of_whose_pixels_are() -> None:
    module, picture = of_latents(), pictures(1)
    known = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    known[..., :9] = True
    made = module.edit(picture, torch.arange(1), seed=0, known=known)
    assert torch.equal(made[..., :9], picture[..., :9])
    assert not torch.equal(made[..., 9:], picture[..., 9:])
    assert module.places(known)[0, 0, 0].tolist() == [True] * 4 + [False] * 4
    # Of which nothing is made anew, comes back as the autoencoder has it.
    torch.testing.assert_close(
        module.edit(picture, torch.arange(1), seed=0, strength=0.0),
        autoencoder().reconstruct(picture),
        atol=1e-3,
        rtol=0,
    )


def test_a_checkpoint_knows_its_latents() -> None:
    module = of_latents()
    options = constructor_options(module.hparams)
    again = Flow.from_options(options)
    assert again.latent_space is not None
    assert module.latent_space is not None
    assert plain(again.latent_space.options) == plain(module.latent_space.options)
    assert again.autoencoder_run() == os.path.abspath("runs/kl")
    assert tiny(Flow).autoencoder_run() == ""
