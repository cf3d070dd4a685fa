"""Similarity of results with their source pictures: LPIPS, SSIM and PSNR."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from gesso.common.pixels import LUMA, to_float
from lightning_modules.metrics.features import measuring
from lightning_modules.metrics.statistics import SumMetric
from lightning_modules.networks.lpips import LPIPS

#: The metrics of the table that ``SourceSimilarity`` computes.
COMPUTED = ("lpips", "ssim", "psnr")
#: Side of SSIM's window in pixels, its Gaussian's sigma, and its two constants for values in [0, 1].
WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2


class SourceSimilarity(SumMetric):
    """Compares results with their source pictures: means of ``lpips``, ``ssim`` and ``psnr``.

    LPIPS repeats a grey picture over three channels.

    Args:
        lpips: the network of ``lpips``; not part of the state dict.
        names: metrics out of ``COMPUTED``.

    Raises:
        ValueError: an unknown name, or ``lpips`` without its network.
    """

    count: Tensor
    sums: Tensor

    def __init__(self, lpips: LPIPS | None, names: Sequence[str] = COMPUTED) -> None:
        super().__init__()
        if set(names) - set(COMPUTED):
            raise ValueError(f"metrics {', '.join(names)}: choose from {', '.join(COMPUTED)}")
        if lpips is None and "lpips" in names:
            raise ValueError("lpips needs its network: pass lpips")
        # In a tuple it is no submodule of this metric, so it is in no checkpoint and no optimizer.
        self.networks = (lpips,)
        self.names = tuple(names)
        self.add_sum("count", dtype=torch.int64)
        self.add_sum("sums", len(self.names))

    def update(self, sources: Tensor, made: Tensor) -> None:
        """Adds pictures.

        Args:
            sources, made: [N, C, H, W] with C 1 or 3, uint8, or float in [-1, 1] (and clamped to it); N may be 0.

        Raises:
            ValueError: their shapes differ.
        """
        if sources.shape != made.shape or sources.dim() != 4 or sources.shape[1] not in (1, 3):
            raise ValueError(
                f"pictures and what was made of them are [N, 1 or 3, H, W], alike; got {list(sources.shape)} and "
                f"{list(made.shape)}"
            )
        if not len(sources):
            return
        sources, made = (in_range(images.to(self.device)) for images in (sources, made))
        means: dict[str, Tensor] = {}
        with measuring(self.device):
            (lpips,) = self.networks
            if lpips is not None and "lpips" in self.names:
                colored = [images.expand(-1, 3, -1, -1) for images in (made, sources)]
                means["lpips"] = lpips.to(self.device)(*colored).mean()
            if "ssim" in self.names:
                means["ssim"] = structural_similarity(made, sources)
            if "psnr" in self.names:
                means["psnr"] = signal_to_noise(made, sources).mean()
            self.sums += len(sources) * torch.stack([means[name].double() for name in self.names])
            self.count += len(sources)

    def compute(self) -> dict[str, float]:
        """The metrics over all ranks by full name: ``{"lpips/vgg16": ..., "ssim": ...}``.

        Raises:
            ValueError: no pictures.
        """
        if not int(self.count):
            raise ValueError(f"there are no pictures for {', '.join(self.names)}")
        (lpips,) = self.networks
        full = {"lpips": f"lpips/{lpips.name}" if lpips is not None else "lpips"}
        values = (self.sums / self.count).tolist()
        return {full.get(name, name): value for name, value in zip(self.names, values, strict=True)}


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """Mean SSIM on the luminance (Wang et al. 2004, IEEE TIP 13(4)), up to 1: float64 scalar.

    Its windows of 11 x 11 pixels lie wholly inside of the pictures, as in the authors' code and in scikit-image.

    Args:
        images, others: float32 [N, 1 or 3, H, W] in [-1, 1].

    Raises:
        ValueError: the pictures are smaller than a window.
    """
    if min(images.shape[2:]) < WINDOW:
        height, width = images.shape[2:]
        raise ValueError(
            f"ssim looks at {WINDOW} x {WINDOW} pixels at a time: pictures of {height} x {width} have none"
        )
    # Computed on [0, 1].
    ours, theirs = (luminance(pictures).double().add(1).div(2) for pictures in (images, others))
    moments = torch.cat([ours, theirs, ours.square(), theirs.square(), ours * theirs])
    distances = torch.arange(WINDOW, device=moments.device, dtype=moments.dtype) - WINDOW // 2
    window = distances.div(SIGMA).square().div(-2).exp()
    window = window / window.sum()
    means = conv2d(conv2d(moments, window.view(1, 1, WINDOW, 1)), window.view(1, 1, 1, WINDOW))
    mean, other_mean, square, other_square, product = means.chunk(5)
    covariance = product - mean * other_mean
    variances = square - mean.square() + other_square - other_mean.square()
    likeness = (2 * mean * other_mean + C1) * (2 * covariance + C2)
    return (likeness / ((mean.square() + other_mean.square() + C1) * (variances + C2))).mean()


def signal_to_noise(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, float32 [N]: 10 log10 of the squared range over the mean square.

    Args:
        images, others: float32 [N, C, H, W] in [-1, 1]; equal ones have 100 dB.
    """
    squares = (images - others).div(2).square().mean((1, 2, 3))
    return -10 * squares.clamp_min(1e-10).log10()


def luminance(images: Tensor) -> Tensor:
    """Luminance [N, 1, H, W] of images [N, 1 or 3, H, W], by the weights of ITU-R BT.601."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def in_range(images: Tensor) -> Tensor:
    """Converts uint8 images, or floats, which are clamped, to float32 in [-1, 1]."""
    return to_float(images) if images.dtype == torch.uint8 else images.float().clamp(-1, 1)
