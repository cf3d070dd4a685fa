"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import Count, NonNegative
from lightning_modules.core.deployment import Deployable, Layout, Named, Port
from lightning_modules.core.family import Batch, Losses, Preview
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import Renamed
from lightning_modules.kinds.latent import LatentFamily
from lightning_modules.losses.variational import Reconstruction, gaussian_kl, reconstruction_loss
from lightning_modules.losses.weights import check_weights
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator
from lightning_modules.metrics.mutual_information import EncodingEvaluator
from lightning_modules.networks.folding import folded
from lightning_modules.networks.vae import Autoencoder, AutoencoderOptions


class VAE(LatentFamily):
    """Convolutional VAE (Kingma and Welling 2014); with beta > 1 the beta-VAE (Higgins et al. 2017).

    Minimises reconstruction + beta * KL, both summed over an image's pixels or latent dimensions and averaged over the
    batch, so that beta = 1 is the evidence lower bound.

    Args:
        resolution: height and width of the images in pixels, a power of two from 32 to 256.
        channels: 1 (grey) or 3 (RGB).
        latent_dim: dimensions of z.
        beta: weight of the KL divergence.
        reconstruction: ``mse`` (Gaussian), ``l1`` (Laplace) or ``bernoulli``.
        autoencoder: options of the networks.
        optimizer: options of their optimizer.
        options: those of ``ImageFamily``.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("autoencoder",)
    renamed_options: ClassVar[Renamed] = {
        "width": ("autoencoder.width",),
        "gradient_checkpointing": ("autoencoder.gradient_checkpointing",),
        "lr": ("optimizer.lr",),
    }

    def __init__(
        self,
        *,
        resolution: Count = 64,
        channels: int = 3,
        latent_dim: Count = 128,
        beta: NonNegative = 1.0,
        reconstruction: Reconstruction = "mse",
        autoencoder: AutoencoderOptions = AutoencoderOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(lr=1e-3),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(beta=beta)
        self.save_hyperparameters()
        self.resolution, self.channels, self.optimizer = resolution, channels, optimizer
        self.latent_dim, self.beta, self.reconstruction = latent_dim, beta, reconstruction
        self.autoencoder = Autoencoder(autoencoder, resolution=resolution, channels=channels, latent_dim=latent_dim)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"autoencoder": self.optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("autoencoder",)

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.autoencoder.decoder(latents).float()

    def deployable_parts(self) -> tuple[str, ...]:
        return ("decoder", "reconstruction")

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: latents to images, or images to those of their posterior's mean."""
        if self.known_part(part) == "decoder":
            return self.deployable_decoder(
                self.autoencoder.decoder, lambda decoder, latents, labels: decoder(latents).float(), layout
            )
        alone = folded(self.autoencoder)
        images = torch.zeros(layout.count, self.channels, self.resolution, self.resolution)
        return Deployable(
            Named(lambda source: alone.decoder(alone.encoder(source)[0]), network=alone),
            {"source": Port(images, "pictures, float32 [N, C, H, W] in [-1, 1]", {0: "batch"}, pictures="image")},
            "picture",
            "their reconstructions, float32 [N, C, H, W] in [-1, 1]",
            lambda index, seed, pictures: dict(pictures),
            lambda inputs: self.autoencoder(inputs["source"], self._no_noise(inputs["source"]))[0].float(),
        )

    def step_kind(self) -> Hashable:
        """See ``ImageFamily.step_kind``."""
        return ()

    def step(self, batch: Batch) -> None:
        self.update("autoencoder", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        """Reconstruction loss (in nats, up to a constant), and the terms of ``regularization``: means over images."""
        images = batch["image"]
        noise = self.randn(len(images), self.latent_dim)
        decoded, mean, log_variance = self.autoencoder(images, noise)
        reconstruction = reconstruction_loss(self.reconstruction, decoded, images)
        weighted, terms = self.regularization(mean, log_variance, noise)
        return {"loss": reconstruction + weighted, "reconstruction": reconstruction, **terms}

    def regularization(self, mean: Tensor, log_variance: Tensor, noise: Tensor) -> tuple[Tensor, Losses]:
        """What is minimised beside the reconstruction loss, and its terms, which are logged, in nats.

        Args:
            mean, log_variance: of the posteriors, [N, latent_dim].
            noise: by which latents were drawn from them.
        """
        kl = gaussian_kl(mean, log_variance).mean()
        return self.beta * kl, {"kl": kl}

    def held_out_losses(self, batch: Batch) -> Losses:
        # The posterior's mean, not a sample: validation losses are deterministic.
        images = batch["image"]
        decoded, mean, log_variance = self.autoencoder(images, self._no_noise(images))
        reconstruction = reconstruction_loss(self.reconstruction, decoded, images)
        kl = gaussian_kl(mean, log_variance).mean()
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}

    def codes(self, images: Tensor) -> Tensor:
        """See ``Abilities.codes``: means of the posteriors, [N, latent_dim]."""
        mean, _ = self.autoencoder.encoder(images)
        return mean

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares samples with real images: FID and others; for ``mig`` encodes held-out ones."""
        if options.metrics == ():
            return None
        return EncodingEvaluator(
            lambda index, batch: self.generate(index, seed=options.seed),
            options,
            self.described(),
            family=self,
            code_dim=self.latent_dim,
        )

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        images = held_out["image"]
        decoded, *_ = self.autoencoder(images, self._no_noise(images))
        # Rows of originals, each above the row of its reconstructions.
        columns = min(10, len(images))
        rows = zip(images.split(columns), decoded.float().split(columns), strict=True)
        pairs = torch.cat([row for both in rows for row in both])
        made = {"reconstruction": Preview(pairs, columns), "traversal": self.traversal(images)}
        return {**super().previews(held_out, seed=seed), **made}

    def traversal(self, images: Tensor, *, rows: int = 10, columns: int = 9) -> Preview:
        """The first image's code decoded with one latent changed at a time, from -2 to 2: a row for each.

        Args:
            images: [N, C, H, W] in [-1, 1]; latents are ordered by their mean KL divergence over them.
            rows: how many latents, those that tell most of an image first.
            columns: how many values.
        """
        mean, log_variance = self.autoencoder.encoder(images)
        latents = zip(mean.split(1, dim=1), log_variance.split(1, dim=1), strict=True)
        told = torch.stack([gaussian_kl(*latent).mean() for latent in latents])
        chosen = told.argsort(descending=True, stable=True)[:rows]
        codes = mean[:1].repeat(len(chosen), columns, 1)
        codes[torch.arange(len(chosen)), :, chosen] = torch.linspace(-2, 2, columns, device=codes.device)
        return Preview(self.decode(codes.flatten(0, 1), None), columns)

    def _no_noise(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), self.latent_dim, device=self.device)
