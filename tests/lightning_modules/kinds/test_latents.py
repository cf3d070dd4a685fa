"""Between latents of standard deviation 1 and pictures: the way there and back, and the autoencoders it refuses."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.abilities import CannotDo
from lightning_modules.kinds.latents import LatentOptions, LatentSpace
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions

MEAN, STD = (3.0, -2.0), (0.5, 4.0)


def autoencoder(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    small = KLAutoencoderOptions(32, (1, 1), 1)
    options: dict[str, Any] = {"perceptual_weight": 0.0, "adversarial_weight": 0.0}
    return AutoencoderKL(resolution=16, latent_channels=2, autoencoder=small, **options)


def space() -> LatentSpace:
    made = LatentSpace(LatentOptions("runs/kl").of(autoencoder().encoder_checksum(), MEAN, STD))
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


def test_options_come_back_from_plain_data_and_name_the_run_from_any_folder() -> None:
    options = LatentOptions("runs/kl").of("abc", MEAN, STD)
    assert options.autoencoder == os.path.abspath("runs/kl")
    plain: dict[str, Any] = {"autoencoder": "runs/kl", "encoder": "abc", "mean": [*MEAN], "std": [*STD]}
    assert replace(LatentOptions(), **plain) == options
    assert options
    assert not LatentOptions()


def test_other_autoencoders_are_refused() -> None:
    with pytest.raises(ValueError, match="is not the one that the latents were encoded with") as caught:
        space().take_autoencoder(autoencoder(1))
    assert "\n" not in str(caught.value)
    with pytest.raises(CannotDo, match="a VAE encodes no pictures into latents"):
        space().take_autoencoder(VAE(resolution=32, latent_dim=2))
    with pytest.raises(RuntimeError, match="there is no autoencoder"):
        LatentSpace(LatentOptions("runs/kl").of("abc", MEAN, STD)).decode(torch.zeros(1, 2, 8, 8))
    unknown = LatentSpace(LatentOptions("runs/kl"))
    unknown.take_autoencoder(autoencoder())
    with pytest.raises(RuntimeError, match="not known before training begins"):
        unknown.decode(torch.zeros(1, 2, 8, 8))
