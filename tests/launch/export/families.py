"""A tiny network of every family, and its way into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from launch.export.gate import Figures, compare
from launch.export.onnx_file import OnnxRunner, traced, write_onnx
from launch.export.samples import Samples
from lightning_modules.catalogue import family
from lightning_modules.core.deployment import Layout
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.frozen import Frozen
from lightning_modules.networks.vgg import VGG19

UNET = {"architecture": "ddpmpp", "width": 8, "multipliers": (1,), "blocks": 1, "attention_resolutions": ()}
STYLE = {"mapping": {"layers": 2, "w_dim": 16}, "discriminator": {"channel_base": 128, "channel_max": 16}}
R3 = {"widths": (16, 16, 8), "blocks": 1, "group_width": 8}
DIFFUSION = {"resolution": 16, "channels": 1, "network": UNET}

OPTIONS: dict[str, dict[str, Any]] = {
    "DCGAN": {
        "resolution": 32,
        "channels": 1,
        "latent_dim": 8,
        "num_classes": 3,
        "generator": {"width": 8, "attention_resolution": 8, "spectral_norm": True},
        "discriminator": {"width": 4},
    },
    "BigGAN": {
        "resolution": 32,
        "latent_dim": 8,
        "num_classes": 3,
        "truncation_psi": 0.7,
        "generator": {"width": 4, "shared_dim": 4, "attention_resolution": 8},
        "discriminator": {"width": 2},
    },
    "VAE": {"resolution": 32, "channels": 1, "latent_dim": 4, "autoencoder": {"width": 8}},
    "BetaTCVAE": {"resolution": 32, "channels": 1, "latent_dim": 4, "autoencoder": {"width": 8}},
    "FactorVAE": {
        "resolution": 32,
        "channels": 1,
        "latent_dim": 4,
        "autoencoder": {"width": 8},
        "discriminator": {"width": 8, "layers": 1},
    },
    "FastStyle": {
        "resolution": 32,
        "styles": ["a.png", "b.png"],
        "noise_octaves": 3,
        "network": {"kind": "light", "upsampling": "bilinear"},
    },
    "AdaIN": {"resolution": 32},
    "MCCNet": {"resolution": 32},
    "StyTr2": {"resolution": 32, "network": {"width": 64, "heads": 2, "encoder_layers": 1, "transfer_layers": 1}},
    "R3GAN": {"resolution": 16, "latent_dim": 8, "num_classes": 3, "generator": R3, "discriminator": R3},
    "GANformer": {
        "resolution": 16,
        "latent_dim": 24,
        "num_classes": 3,
        "truncation_psi": 0.7,
        "synthesis": {"channel_base": 128, "channel_max": 16, "attention": {"iterations": 2}},
        **STYLE,
        "mapping": {"layers": 2, "w_dim": 8, "components": 2},
    },
    "StyleGAN1": {
        "resolution": 16,
        "latent_dim": 8,
        "num_classes": 3,
        "truncation_psi": 0.7,
        "synthesis": {"channel_base": 128, "channel_max": 16},
        **STYLE,
    },
    "StyleGAN2": {
        "resolution": 16,
        "latent_dim": 8,
        "num_classes": 3,
        "truncation_psi": 0.7,
        "synthesis": {"channel_base": 128, "channel_max": 16},
        **STYLE,
    },
    "StyleGAN3": {
        "resolution": 16,
        "latent_dim": 8,
        "synthesis": {"channel_base": 256, "channel_max": 16, "layers": 4},
        **STYLE,
    },
    "StyleSwin": {
        "resolution": 16,
        "latent_dim": 8,
        "num_classes": 3,
        "synthesis": {"channel_base": 128, "channel_max": 16, "window": 4},
        **STYLE,
    },
    "ProjectedGAN": {
        "resolution": 16,
        "latent_dim": 8,
        "num_classes": 3,
        "generator": {"width": 8, "lite": True},
        "feature_size": 64,
        "mixed_width": 4,
    },
    "CycleGAN": {
        "resolution": 32,
        "generator": {"width": 4, "blocks": 1},
        "discriminator": {"width": 4, "layers": 2},
        "pool_size": 0,
    },
    "CUT": {
        "resolution": 32,
        "generator": {"width": 4, "blocks": 1, "antialias": True},
        "discriminator": {"width": 4, "layers": 2},
    },
    "MUNIT": {
        "resolution": 32,
        "autoencoder": {"width": 4, "blocks": 1, "hidden": 8},
        "discriminator": {"width": 4, "scales": 1, "layers": 2},
    },
    "StarGANv2": {
        "resolution": 32,
        "num_classes": 3,
        "network": {"width": 4, "width_max": 8, "halvings": 1, "style_dim": 5, "hidden": 8},
    },
    "AutoencoderKL": {
        "resolution": 16,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.0,
        "autoencoder": {"width": 32, "multipliers": (1, 1), "blocks": 1},
    },
    "SwappingAutoencoder": {
        "resolution": 32,
        "autoencoder": {"texture_dim": 16, "halvings": 2, "encoder_width": 4, "decoder_width": 4, "decoder_max": 8},
        "discriminator": {"channel_base": 128, "channel_max": 8, "minibatch_features": 0},
        "cooccurrence": {"patch_size": 8, "width": 16, "width_max": 8, "hidden": 16},
    },
    "EDM": {**DIFFUSION, "num_classes": 3},
    "DDPM": DIFFUSION,
    "Flow": DIFFUSION,
    "ECT": DIFFUSION,
    "MeanFlow": DIFFUSION,
    "ProgressiveDistillation": DIFFUSION,
}


def tiny(name: str, **changes: Any) -> ImageFamily:
    """A family with random weights, and statistics that a trained one could have."""
    torch.manual_seed(0)
    module = family(name).from_options({**OPTIONS[name], **changes}).eval().requires_grad_(False)
    for part in module.modules():
        if getattr(part, "running_var", None) is not None:
            part.running_mean.normal_()  # type: ignore[union-attr, operator]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    if name in ("AdaIN", "MCCNet"):
        module._encoder = Frozen(VGG19(None))  # type: ignore[attr-defined]
    for parameter in module.parameters():
        # What begins at 0 would hide what it is multiplied with.
        if not parameter.any():
            parameter.normal_(std=0.2)
    return module


def exported(module: ImageFamily, part: str, layout: Layout, file: Path, *, samples: int = 4) -> Figures:
    """Writes a part as ONNX, and compares it with the family on made-up inputs."""
    deployable = module.deployable(part, layout)
    write_onnx(traced(deployable, dynamic=layout.dynamic), deployable, file, {"gesso.part": part})
    inputs = Samples(deployable, None, dynamic=layout.dynamic)(samples, seed=1)
    return compare(deployable, OnnxRunner(file, deployable.output), inputs, None)
