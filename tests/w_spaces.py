"""Small spaces W for tests: one of closed forms, and those of tiny StyleGAN2 networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from launch.checkpoints.export import export
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.gan.stylegan3 import StyleGAN3
from lightning_modules.kinds.w_space import WSpace
from lightning_modules.networks.stylegan2.discriminator import DiscriminatorOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import SynthesisOptions
from lightning_modules.networks.stylegan3.schedule import SynthesisOptions as StyleGAN3Options


def formula(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers that every machine makes alike, float32, in [-1, 1]."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).mul(1.7).add(phase).sin().view(shape).float()


class ToySpace(WSpace):
    """Pictures of 16 x 16 whose pixels are tanh of a linear map of w, plus a little of the noise of both maps."""

    w_dim, num_ws, noise_sides, device = 6, 4, (8, 16), torch.device("cpu")

    def sampled(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        return torch.stack([formula(self.w_dim, phase=0.37 * number) for number in index.tolist()])

    def layers(self, w: Tensor) -> Tensor:
        return w[:, None].expand(-1, self.num_ws, -1)

    def images(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        picture = torch.einsum("nld,ldp->np", ws, formula(self.num_ws, self.w_dim, 256)).view(-1, 1, 16, 16)
        if noise is not None:
            coarse, fine = (part.view(-1, 1, side, side) for part, side in zip(noise.split([64, 256], 1), (8, 16)))  # noqa: B905
            picture = picture + 0.1 * F.interpolate(coarse, scale_factor=2) + 0.1 * fine
        return picture.tanh()

    def style_weights(self) -> list[Tensor]:
        return [formula(5, self.w_dim, phase=layer) for layer in range(self.num_ws)]

    def checksum(self) -> str:
        return "toy"


def tiny(seed: int = 0, **options: Any) -> StyleGAN2:
    """A StyleGAN2 of 16 x 16 grey pixels with random weights, whose w spreads like a trained one's, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths: dict[str, Any] = {"channel_base": 128, "channel_max": 16}
        chosen: dict[str, Any] = {
            "resolution": 16,
            "channels": 1,
            "latent_dim": 8,
            "mapping": MappingOptions(layers=2, w_dim=8),
            "synthesis": SynthesisOptions(**widths),
            "discriminator": DiscriminatorOptions(**widths),
        }
        family = StyleGAN2(**{**chosen, **options})
    family.requires_grad_(False)
    return family.eval()


def tiny3(seed: int = 0) -> StyleGAN3:
    """The same of a StyleGAN3, whose Fourier features depend on w."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = StyleGAN3(
            resolution=16,
            channels=1,
            latent_dim=8,
            mapping=MappingOptions(layers=2, w_dim=8),
            synthesis=StyleGAN3Options(layers=4, channel_base=64, channel_max=8, margin=2),
            discriminator=DiscriminatorOptions(channel_base=128, channel_max=16),
        )
        torch.nn.init.normal_(family.generator.synthesis.input.affine.weight)
    family.requires_grad_(False)
    return family.eval()


def exported(folder: Path, family: StyleGAN2 | None = None, name: str = "model") -> Path:
    """A file that every command takes for a run."""
    file = folder / f"{name}.safetensors"
    export(family or tiny(), file, origin={"images_seen": 1000, "weights": "average"})
    return file
