"""The discriminator of patches: many logits a picture, each of a part of it (pix2pix, Isola et al. 2016).

arXiv:1611.07004. CycleGAN, VQGAN and latent diffusion's autoencoder use it as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count
from lightning_modules.networks.batch_norm import batch_norm
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.initialization import init_dcgan_
from lightning_modules.networks.instance_norm import InstanceNorm
from lightning_modules.networks.precision import like_weights
from lightning_modules.networks.resampling import blur_down
from lightning_modules.networks.spectral_norm import add_spectral_norm_

PatchNorm = Literal["batch", "instance", "none"]


@dataclass(frozen=True)
class PatchDiscriminatorOptions:
    """A discriminator of patches.

    Args:
        width: channels after the first convolution; they double with each further one, up to 8 times ``width``.
        layers: convolutions that halve the side; a logit sees a patch of 34, 70 or 142 pixels with 2, 3 or 4 (with
            ``antialias`` 40, 84 or 172).
        normalization: ``batch`` (pix2pix, VQGAN), ``instance`` (CycleGAN) or ``none``. The first convolution is never
            normalised.
        spectral_norm: divide the weights by their largest singular values (Miyato et al. 2018).
        antialias: convolve at the larger size and halve it by a blur (Zhang 2019), as CUT does; otherwise convolutions
            with stride 2. Four times the work.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
    """

    width: Count = 64
    layers: Count = 3
    normalization: PatchNorm = "batch"
    spectral_norm: bool = False
    antialias: bool = False
    gradient_checkpointing: bool = False


class PatchDiscriminator(nn.Module):
    """Images to a map of logits: convolutions 4x4, normalisation and LeakyReLU(0.2), then one more convolution.

    Args:
        options: see ``PatchDiscriminatorOptions``.
        channels: of the images; a discriminator of pairs gets both pictures' channels.

    Raises:
        ValueError: an unknown normalization.
    """

    def __init__(self, options: PatchDiscriminatorOptions = PatchDiscriminatorOptions(), *, channels: int = 3) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        self.layers = options.layers
        widths = [options.width * min(2**number, 8) for number in range(options.layers + 1)]
        blurred = options.antialias
        blocks = [PatchBlock(channels, widths[0], stride=2, normalization="none", antialias=blurred)]
        for number in range(1, options.layers + 1):
            inner, outer = widths[number - 1 : number + 1]
            stride, norm = 2 if number < options.layers else 1, options.normalization
            blocks.append(PatchBlock(inner, outer, stride=stride, normalization=norm, antialias=blurred))
        self.blocks = nn.ModuleList(blocks)
        #: Channels of ``features``.
        self.width = widths[-1]
        self.to_logits = nn.Conv2d(self.width, 1, 4, padding=1)
        #: Side below which no logit is left: each convolution but the first ``layers`` takes one pixel off.
        self.smallest = 3 * 2**options.layers
        init_dcgan_(self)
        if options.spectral_norm:
            add_spectral_norm_(self)

    def check_side(self, resolution: int, option: str = "discriminator") -> None:
        """Checks that images of ``resolution`` pixels are large enough for the discriminator that ``option`` makes.

        Raises:
            ValueError: they are too small; names the option.
        """
        if resolution < self.smallest:
            raise ValueError(
                f"resolution {resolution} is too small for a discriminator with {self.layers} layers, which wants "
                f"{self.smallest} pixels or more: set {option}.layers lower"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' patches; positive means real.

        Args:
            images: ``[N, channels, H, W]`` in [-1, 1]; with 3 layers, sides of 24 pixels or more.

        Returns:
            float32 (or better) ``[N, 1, h, w]``: with 3 layers 30 x 30 of a picture of 256 pixels.

        Raises:
            ValueError: images that are too small.
        """
        return self.logits(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Maps [N, width, h + 1, w + 1] that the logits are made of; see ``forward``."""
        if min(images.shape[2:]) < self.smallest:
            raise ValueError(
                f"the discriminator of patches wants pictures of {self.smallest} pixels or more, not "
                f"{images.shape[3]} x {images.shape[2]}: set its layers lower"
            )
        x = like_weights(images, self)
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.gradient_checkpointing)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Logits [N, 1, h, w] of ``features``."""
        # In the parameters' own precision, as DCGAN's.
        with torch.autocast(x.device.type, enabled=False):
            logits = self.to_logits(x.to(self.to_logits.weight.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class PatchBlock(nn.Module):
    """Convolution 4x4, normalisation, LeakyReLU(0.2); the bias is left out where a norm has its own.

    With ``antialias`` and stride 2 the convolution has stride 1, and a blur at the end halves the size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, normalization: PatchNorm, antialias: bool = False
    ) -> None:
        super().__init__()
        self.blurred = antialias and stride == 2
        bias = normalization != "batch"
        stride = 1 if self.blurred else stride
        self.convolution = nn.Conv2d(in_channels, out_channels, 4, stride=stride, padding=1, bias=bias)
        self.norm = _normalization(normalization, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` to ``[N, out, H / 2, W / 2]``, or with stride 1 ``[N, out, H - 1, W - 1]``."""
        x = F.leaky_relu(self.norm(self.convolution(x)), 0.2, inplace=True)
        return blur_down(x) if self.blurred else x


def _normalization(kind: PatchNorm, features: int) -> nn.Module:
    match kind:
        case "batch":
            return batch_norm(features)
        case "instance":
            return InstanceNorm()
        case "none":
            return nn.Identity()
    raise ValueError(f"normalization {kind!r} is unknown; choose batch, instance or none")
