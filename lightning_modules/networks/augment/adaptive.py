"""Adaptive discriminator augmentation, ADA (Karras et al. 2020, arXiv:2006.06676)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive, Share
from gesso.common.ranks import sum_over_ranks
from gesso.common.schedules import Schedule, at
from lightning_modules.networks.augment.columns import Columns, Noise
from lightning_modules.networks.augment.resampling import SYM6, warp
from lightning_modules.networks.augment.transforms import (
    blitting,
    cut_out,
    filter_bank,
    general_geometry,
    noisy,
    recolored,
    refiltered,
)
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.filters import setup_filter

Transforms = Literal[
    "none", "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", "bgc_cutout"
]
#: In the order of their initials in ``bgcfnc``.
_GROUPS = ("blit", "geom", "color", "filter", "noise", "cutout")


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentation of all images that the discriminator sees, real and generated ones.

    Args:
        transforms: ``none``; one group alone, ``blit`` (mirrors, turns by 90 degrees, whole pixels), ``geom``
            (scaling, rotation, translation), ``color``, ``filter`` (bands of frequencies), ``noise`` or ``cutout``; or
            several by their initials: ``bgc`` is what the authors recommend, ``bgc_cutout`` is R3GAN's.
        target: mean sign of the discriminator's logits of real images at which p stays; above it p rises, since the
            discriminator overfits. None: p stays as it is.
        interval: steps from one change of p to the next.
        kimg: thousands of images in which p can rise from 0 to 1.
        initial_p: p at the start: the probability of each transformation.
        color_share: the share of p with which colours are changed (R3GAN: a half).
        schedule: p over the training, which then follows nothing else (R3GAN); None: p follows the overfitting.
    """

    transforms: Transforms = "none"
    target: Share | None = 0.6
    interval: Count = 4
    kimg: Positive = 500.0
    initial_p: Share = 0.0
    color_share: Share = 1.0
    schedule: Share | Schedule | None = None


class AdaptiveAugmentation(nn.Module):
    """Augments images with a probability that follows the discriminator's overfitting, or a schedule.

    Its state is whole numbers, in buffers: p does not depend on precision or on the number of ranks, resuming is
    exact, and nothing is read from the device.

    Args:
        options: see ``AugmentOptions``.
    """

    #: p times ``kimg`` times 1000.
    strength: Tensor
    #: Since p has changed, over all ranks: sum of the signs of the logits, and their number.
    signs: Tensor
    taps: Tensor
    bank: Tensor

    def __init__(self, options: AugmentOptions) -> None:
        super().__init__()
        self.options = options
        name = options.transforms
        initials, _, more = name.partition("_")
        several = () if name == "none" else (*_GROUPS[: len(initials)], *((more,) if more else ()))
        self.groups = frozenset((name,) if name in _GROUPS else several)
        self._images = options.kimg * 1000
        self.register_buffer("strength", torch.tensor(round(options.initial_p * self._images)))
        self.register_buffer("signs", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("taps", setup_filter(SYM6), persistent=False)
        self.register_buffer("bank", filter_bank(), persistent=False)
        #: Of this step, on this rank.
        self._seen: list[Tensor] = []
        self._count = 0

    @property
    def p(self) -> Tensor:
        """Probability of each transformation, a float32 scalar on the device; 0 or more."""
        return (self.strength / self._images).float()

    def forward(self, images: Tensor, noise: Noise) -> Tensor:
        """Augmented images, at least float32, like ``images``; differentiable in these, twice.

        Args:
            images: ``[N, 3 or 1, H, W]`` in [-1, 1].
            noise: draws the transformations.
        """
        with torch.autocast(images.device.type, enabled=False):
            images = in_full_precision(images)
            columns = Columns.drawn(noise, len(images), self.p)
            field = noise.randn(len(images), *images.shape[1:]) if "noise" in self.groups else None
            return self.transformed(images, columns, field)

    def transformed(self, images: Tensor, columns: Columns, field: Tensor | None = None) -> Tensor:
        """Images ``[N, 3 or 1, H, W]`` transformed as ``columns`` say; ``field``: N(0, 1), where noise is asked for."""
        height, width = images.shape[2:]
        matrices = []
        for group, make, counts in (("blit", blitting, (7, 0)), ("geom", general_geometry, (7, 4))):
            if group in self.groups:
                matrices.append(make(columns, height, width))
            else:
                columns.skip(*counts)
        if matrices:
            inverse = matrices[0] if len(matrices) == 1 else matrices[0] @ matrices[1]
            images = warp(images, inverse.to(images.dtype), self.taps)
        if "color" in self.groups:
            p, columns.p = columns.p, columns.p * self.options.color_share
            images = recolored(images, columns)
            columns.p = p
        else:
            columns.skip(7, 3)
        if "filter" in self.groups:
            images = refiltered(images, columns, in_full_precision(self.bank))
        else:
            columns.skip(4, 4)
        if field is not None:
            images = noisy(images, columns, field)
        else:
            columns.skip(1, 1)
        return cut_out(images, columns) if "cutout" in self.groups else images

    # ---- how p changes -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def begin_step(self, images_seen: int, *, total_kimg: float | None) -> None:
        """Sets p as its schedule says, if it has one; see ``Schedule.at``."""
        if self.options.schedule is not None:
            p = at(self.options.schedule, images_seen, total_kimg=total_kimg)
            self.strength.fill_(round(p * self._images))

    def adapts_after(self, step: int) -> bool:
        """Whether p changes at the end of step number ``step``, from 0, where it follows the discriminator."""
        return (step + 1) % self.options.interval == 0

    def watch(self, logits: Tensor) -> None:
        """Notes the discriminator's logits of real images, ``[N]``; NaN counts as 0."""
        logits = logits.detach()
        self._seen.append((logits > 0).sum() - (logits < 0).sum())
        self._count += logits.numel()

    @torch.no_grad()
    def end_step(self, step: int) -> None:
        """Takes in what was watched in step number ``step``, from 0, and changes p if its turn is; a collective."""
        seen, count = self._seen, self._count
        self._seen, self._count = [], 0
        if self.options.target is None or self.options.schedule is not None or not seen:
            return
        signs = torch.stack(seen).sum()
        self.signs.add_(sum_over_ranks(torch.stack([signs, torch.full_like(signs, count)])))
        if self.adapts_after(step):
            signs, count_of_all = self.signs.unbind()
            direction = torch.sign(signs - self.options.target * count_of_all.double())
            self.strength.add_(direction.to(torch.int64) * count_of_all).clamp_(min=0)
            self.signs.zero_()
