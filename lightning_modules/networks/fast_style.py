"""Feed-forward style transfer (Johnson, Alahi and Fei-Fei 2016), and a light network for phones and video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.instance_norm import ConditionalInstanceNorm
from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import like_weights

#: ``johnson``: the paper's, 1.7 million weights; ``light``: depthwise separable residuals at half the width, and a last
#: kernel of 3 x 3.
Kind = Literal["johnson", "light"]
#: How maps are doubled in size. ``nearest``: what is drawn on the small map comes out as squares, which a network that
#: has not learned long shows as blocks and as stamps of their size; ``bilinear``: as round spots.
Upsampling = Literal["nearest", "bilinear"]
#: Pixels around a place that its colour depends on, apart from the norms' statistics.
MARGIN = 72
#: A map in the middle is so many times smaller than the picture.
SCALE = 4
RESIDUALS = 5
#: What is brighter than white or darker than black shows that much in training, so that there is a way back. (Behind a
#: tanh there is none: white spots, which the instance norms make early, would stay.)
BEYOND = 0.1


@dataclass(frozen=True)
class FastStyleOptions:
    """The network of fast style transfer.

    Args:
        kind: ``johnson``, or ``light`` for phones and video: see ``Kind``.
        gradient_checkpointing: recompute each block in the backward pass: less memory, about a third more time.
        upsampling: see ``Upsampling``.
    """

    kind: Kind = "johnson"
    gradient_checkpointing: bool = False
    upsampling: Upsampling = "nearest"


class FastStyleNetwork(nn.Module):
    """Two strided convolutions, five residual blocks, two upsamplings; instance norm and reflection padding throughout.

    What it draws is added to the content in the style's brightness and contrast, so that it need not learn to copy.
    Upsampling and a convolution stand for the paper's transposed convolutions, which leave checkerboards (Odena
    et al. 2016).

    Args:
        options: see ``FastStyleOptions``.
        styles: number K of styles.
    """

    def __init__(self, options: FastStyleOptions = FastStyleOptions(), *, styles: int = 1) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        kind, self.upsampling = options.kind, options.upsampling
        width = 32 if kind == "johnson" else 16
        self.down = nn.ModuleList(
            [
                _Convolution(3, width, 9, styles),
                _Convolution(width, 2 * width, 3, styles, stride=2),
                _Convolution(2 * width, 4 * width, 3, styles, stride=2),
            ]
        )
        self.residuals = nn.ModuleList(
            _Residual(4 * width, styles, separable=kind == "light") for _ in range(RESIDUALS)
        )
        self.up = nn.ModuleList(_Convolution(2 * channels, channels, 3, styles) for channels in (2 * width, width))
        self.to_rgb = nn.Conv2d(width, 3, 9 if kind == "johnson" else 3)
        self.colors = ConditionalInstanceNorm(3, styles)
        # At first the picture is the content's, of middling contrast, from where the way to a styled one is steady.
        nn.init.normal_(self.to_rgb.weight, std=1e-3)
        nn.init.constant_(self.colors.weight, 0.5)

    def forward(self, images: Tensor, mix: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pictures in a style.

        Args:
            images: [N, 3, H, W] in [-1, 1], of any side.
            mix: shares of the styles, with sums of 1: [N, K, 1, 1], or of each pixel [N, K, H, W].
            noise: added to what the network sees, not to what it paints on: [N or 1, 1, H, W].

        Returns:
            [N, 3, H, W] in [-1, 1]; in training mode, a part of what lies beyond, too.
        """
        on = self.gradient_checkpointing
        x = like_weights(images if noise is None else images + noise, self)
        full, half, quarter = (_smaller(mix, scale) for scale in (1, 2, 4))
        sizes = []
        for block, shares in zip(self.down, (full, half, quarter), strict=True):
            x = checkpointed(block, x, shares, enabled=on)
            sizes.append(x.shape[2:])
        for block in self.residuals:
            x = checkpointed(block, x, quarter, enabled=on)
        for block, shares, (height, width) in zip(self.up, (half, full), sizes[-2::-1], strict=True):
            # Odd sides were rounded up on the way down.
            x = F.interpolate(x, scale_factor=2.0, mode=self.upsampling)[:, :, :height, :width]
            x = checkpointed(block, x, shares, enabled=on)
        painted = self.colors(images, mix) + self.to_rgb(reflect(x, self.to_rgb.kernel_size[0] // 2)).float()
        picture = painted.clamp(-1, 1)
        return picture + BEYOND * (painted - picture) if self.training else picture


def _smaller(mix: Tensor, scale: int) -> Tensor:
    # By squares that begin where a strided convolution's pixels do, so that a tile of a picture has the same.
    return mix if scale == 1 or mix.shape[2:] == (1, 1) else F.avg_pool2d(mix, scale, ceil_mode=True)


class _Convolution(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int, styles: int, *, stride: int = 1) -> None:
        super().__init__()
        # The norm's shift stands for a bias.
        self.convolution = nn.Conv2d(channels, width, kernel, stride, bias=False)
        self.norm = ConditionalInstanceNorm(width, styles)

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        return F.relu(self.norm(self.convolution(reflect(x, self.convolution.kernel_size[0] // 2)), mix))


class _Residual(nn.Module):
    """x + F(x), with two convolutions of 3 x 3, each depthwise and pointwise where ``separable``."""

    def __init__(self, channels: int, styles: int, *, separable: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_three_by_three(channels, separable) for _ in range(2))
        self.norms = nn.ModuleList(ConditionalInstanceNorm(channels, styles) for _ in range(2))

    def forward(self, x: Tensor, mix: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.convolutions[0](reflect(x)), mix))
        return x + self.norms[1](self.convolutions[1](reflect(inner)), mix)


def _three_by_three(channels: int, separable: bool) -> nn.Module:
    if not separable:
        return nn.Conv2d(channels, channels, 3, bias=False)
    depthwise = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(channels, channels, 1, bias=False))
