"""Latents in place of pictures: what a family that makes them needs of an autoencoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_modules.core.family import ImageFamily
from lightning_modules.core.frozen import Frozen
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
    """

    autoencoder: str = ""
    encoder: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # Absolute, so that a checkpoint names it from any folder.
        path = os.path.abspath(self.autoencoder) if self.autoencoder else ""
        for name, value in {"autoencoder": path, "mean": tuple(self.mean), "std": tuple(self.std)}.items():
            object.__setattr__(self, name, value)

    def __bool__(self) -> bool:
        return bool(self.autoencoder)

    def of(self, encoder: str, mean: Sequence[float], std: Sequence[float]) -> LatentOptions:
        """The same for the latents of a shard set."""
        return replace(self, encoder=encoder, mean=tuple(mean), std=tuple(std))


class LatentSpace(nn.Module):
    """Between latents of mean 0 and standard deviation 1, in which a family is trained, and pictures.

    It has no parameters of its own, and is in no checkpoint: the autoencoder comes out of its own run.

    Args:
        options: see ``LatentOptions``.
    """

    def __init__(self, options: LatentOptions) -> None:
        super().__init__()
        self.options = options
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
                f"({self.options.encoder[:12]}): name that one's run or export, or encode the pictures again"
            )
        self._autoencoder = Frozen(module)

    def draw(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Latents [N, C, h, w] of a batch's means and deviations [N, 2C, h, w]; ``noise`` is like the latents."""
        return drawn_latents(moments, noise)

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
