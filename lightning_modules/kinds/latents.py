"""Latents in place of pictures: what a family that makes them needs of an autoencoder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.core.abilities import Batch, BatchSpec
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.frozen import Frozen
from lightning_modules.kinds.generative import GenerativeFamily
from lightning_modules.losses.variational import drawn_latents

#: Pictures that are encoded or decoded at once: an autoencoder needs far more memory for one than a latent model.
AT_ONCE = 16


@dataclass(frozen=True)
class LatentOptions:
    """Latents in place of pictures; the data is then a shard set that ``gesso encode`` wrote.

    Args:
        autoencoder: the run, checkpoint or exported file that the latents were encoded with, which decodes them. Empty:
            the family makes pictures.
        encoder: SHA-256 of its encoder's weights, of the shard set; filled in when training begins, like the others.
        mean: of each channel of the latents.
        std: standard deviation of each channel.
        picture_size: side of the pictures in pixels.
        picture_channels: 1 (grey) or 3 (RGB).
    """

    autoencoder: str = ""
    encoder: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    picture_size: int = 0
    picture_channels: int = 0


class LatentSpace(nn.Module):
    """Between latents of mean 0 and standard deviation 1, in which a family is trained, and pictures.

    It has no parameters of its own, and is in no checkpoint: the autoencoder comes out of its own run.

    Args:
        options: see ``LatentOptions``.
    """

    def __init__(self, options: LatentOptions) -> None:
        super().__init__()
        # Absolute, so that a checkpoint names it from any folder.
        self.options = replace(options, autoencoder=os.path.abspath(options.autoencoder))
        self._autoencoder: Frozen[ImageFamily] | None = None

    def take_autoencoder(self, module: ImageFamily) -> None:
        """Receives the autoencoder.

        Raises:
            ValueError: it is none, or not the one that the latents were encoded with.
        """
        module.require("encode")
        if self.options.encoder and (own := module.encoder_checksum()) != self.options.encoder:
            raise ValueError(
                f"its encoder ({own[:12]}) is not the one that the latents were encoded with "
                f"({self.options.encoder[:12]}): name that one's run or export "
                "(of raw weights: `gesso checkpoint export RUN FILE --raw`), or encode the pictures again"
            )
        self._autoencoder = Frozen(module)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures NCHW in [-1, 1], float32, of latents [N, C, h, w].

        Raises:
            RuntimeError: there is no autoencoder.
        """
        mean, std = self._moments(latents.device)
        parts = latents.float().split(AT_ONCE)
        return torch.cat([self.autoencoder.decode_latents(part * std + mean) for part in parts])

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Means of the latents [N, C, h, w], float32, of pictures NCHW in [-1, 1]; raises like ``decode``."""
        mean, std = self._moments(pictures.device)
        parts = pictures.float().split(AT_ONCE)
        return torch.cat([(self.autoencoder.encode(part)[0] - mean) / std for part in parts])

    @property
    def autoencoder(self) -> ImageFamily:
        """The autoencoder; raises a RuntimeError where there is none."""
        if self._autoencoder is None:
            raise RuntimeError("there is no autoencoder to decode latents with: pass one to take_autoencoder")
        return self._autoencoder.network

    def _moments(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if not self.options.mean:
            raise RuntimeError("mean and standard deviation of the latents are not known before training begins")
        mean, std = (
            torch.tensor(values, device=device)[:, None, None] for values in (self.options.mean, self.options.std)
        )
        return mean, std


class PictureOrLatentFamily(GenerativeFamily):
    """A family that is trained on pictures, or on latents in their place.

    Args:
        latents: how latents become pictures; without an autoencoder it is trained on pictures.
        options: those of ``ImageFamily``.
    """

    channels: int
    resolution: int
    num_classes: int

    def __init__(  # type: ignore[explicit-any] # options as ImageFamily declares them
        self, *, latents: LatentOptions = LatentOptions(), **options: Any
    ) -> None:
        super().__init__(**options)
        self.latent_space = LatentSpace(latents) if latents.autoencoder else None

    def batch_spec(self) -> BatchSpec:
        # Not of the hyperparameters, which lack what is left at a base class's default.
        return BatchSpec(
            channels=self.channels,
            resolution=self.resolution,
            num_classes=self.num_classes,
            latents=self.latent_space is not None,
        )

    def picture_shape(self) -> tuple[int | None, int | None]:
        """See ``Abilities``."""
        if self.latent_space is None:
            return super().picture_shape()
        return self.latent_space.options.picture_channels, self.latent_space.options.picture_size

    def autoencoder_run(self) -> str:
        return "" if self.latent_space is None else self.latent_space.options.autoencoder

    def take_autoencoder(self, module: ImageFamily) -> None:
        assert self.latent_space is not None
        self.latent_space.take_autoencoder(module)

    def received_autoencoder(self) -> ImageFamily | None:
        return None if self.latent_space is None else self.latent_space.autoencoder

    def take_latents(self, **facts: object) -> None:
        assert self.latent_space is not None
        self.latent_space.options = replace(self.latent_space.options, **facts)  # type: ignore[arg-type]
        # Of the checkpoint: whoever generates has no shard set.
        self.hparams["latents"] = self.latent_space.options

    def drawn(self, batch: Batch) -> Batch:
        """The batch with latents drawn out of their posteriors; one of pictures as it is."""
        if self.latent_space is None:
            return batch
        noise = self.randn(len(batch["image"]), self.channels, self.resolution, self.resolution)
        return {**batch, "image": drawn_latents(batch["image"], noise)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """On the posteriors' means: held-out losses are the same every time."""
        if self.latent_space is not None:
            batch = {**batch, "image": batch["image"].chunk(2, dim=1)[0]}
        super().validation_step(batch, batch_idx)

    def to_images(self, state: Tensor) -> Tensor:
        """What the family makes [N, channels, resolution, resolution] as float32 images in [-1, 1]."""
        return state.clamp(-1, 1).float() if self.latent_space is None else self.latent_space.decode(state)

    def from_images(self, images: Tensor) -> Tensor:
        """The inverse of ``to_images``: images themselves, or the means of their latents."""
        return images if self.latent_space is None else self.latent_space.encode(images)

    def places(self, known: Tensor) -> Tensor:
        """Where all pixels of a place are known: bool [N, 1, resolution, resolution] of bool [N, 1, H, W]."""
        if self.latent_space is None:
            return known
        return -F.adaptive_max_pool2d(-known.float(), self.resolution) > 0.5
