"""Projection of pictures into W: the latent whose picture looks most like a given one.

Karras et al. 2020 (StyleGAN2, arXiv:1912.04958, appendix D), with the settings of StyleGAN2-ADA's code; W+: Abdal et
al. 2019, arXiv:1904.03189.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.ranges import Count, NonNegative, Positive, Share
from lightning_modules.kinds.w_space import WSpace

#: Images [N, C, H, W], about in [-1, 1], to how far each is from its target [N].
Distance = Callable[[Tensor], Tensor]
#: Called with the number of steps done and the distances [N] of now.
Progress = Callable[[int, Tensor], None]
#: Samples that are mapped to w at once.
AT_ONCE = 1000


@dataclass(frozen=True)
class ProjectionOptions:
    """The published schedule.

    Args:
        steps: of the optimizer.
        plus: a w of its own for each layer (W+): closer to the picture, and less like what the generator makes.
        lr: learning rate of Adam at its highest,
        lr_ramp_up: reached after this share of the steps,
        lr_ramp_down: and left, by a cosine, in this last share of them.
        noise: standard deviation of the noise that is added to w, in units of w's own, at the beginning;
        noise_ramp: it falls to 0 in this share of the steps.
        noise_maps: optimise the noise maps as well, so that w need not explain what noise does; else they are the
            generator's own, which pictures that it made itself are found again with.
        noise_weight: of the regulariser that keeps pictures out of the noise maps.
        samples: of which w's mean and standard deviation are taken.
    """

    steps: Count = 1000
    plus: bool = False
    lr: Positive = 0.1
    lr_ramp_up: Share = 0.05
    lr_ramp_down: Share = 0.25
    noise: NonNegative = 0.05
    noise_ramp: Share = 0.75
    noise_maps: bool = True
    noise_weight: NonNegative = 1e5
    samples: Count = 10_000

    def learning_rate(self, done: float) -> float:
        """Learning rate when a share ``done`` of the steps is done."""
        down = min(1.0, (1 - done) / self.lr_ramp_down) if self.lr_ramp_down else 1.0
        up = min(1.0, done / self.lr_ramp_up) if self.lr_ramp_up else 1.0
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * down)) * up

    def noise_of_w(self, done: float) -> float:
        """Standard deviation of the noise on w, in units of w's own, when a share ``done`` of the steps is done."""
        left = 1 - done / self.noise_ramp if self.noise_ramp else 0.0
        return self.noise * max(0.0, left) ** 2


@torch.no_grad()
def moments_of_w(space: WSpace, samples: int, *, seed: int = 0, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean of w [w_dim], and the root of the mean squared distance from it [], of samples of the generator."""
    parts = [
        space.sampled(index, seed=seed, labels=None if labels is None else labels.expand(len(index)))
        for index in torch.arange(samples).split(AT_ONCE)
    ]
    w = torch.cat(parts).double()
    mean = w.mean(0)
    return mean.float(), (w - mean).square().sum(1).mean().sqrt().float()


def project(
    space: WSpace,
    distance: Distance,
    count: int,
    options: ProjectionOptions = ProjectionOptions(),
    *,
    seed: int = 0,
    labels: Tensor | None = None,
    progress: Progress = lambda done, distances: None,
) -> Tensor:
    """Finds the latents whose pictures are nearest to targets.

    Noise maps that are optimised are given up at the end: what they hold is no part of w, and pictures are made with
    the generator's own noise.

    Args:
        space: of the generator, whose weights have no gradient.
        distance: differentiable.
        count: of targets; each is on its own.
        options: see ``ProjectionOptions``.
        seed: of all noise.
        labels: int64 [1]: the class whose mean of w is the beginning; None: all classes'.
        progress: called now and then, not at each step.

    Returns:
        [count, num_ws, w_dim], float32.
    """
    mean, spread = moments_of_w(space, options.samples, seed=seed, labels=labels)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(space.device)

    layers = space.num_ws if options.plus else 1
    w = mean.expand(count, layers, -1).clone().requires_grad_()
    sides = space.noise_sides if options.noise_maps else ()
    maps = [normal(count, side, side).requires_grad_() for side in sides]
    optimizer = torch.optim.Adam([w, *maps], lr=options.lr, betas=(0.9, 0.999))
    with torch.enable_grad():
        for step in range(options.steps):
            done = step / options.steps
            optimizer.param_groups[0]["lr"] = options.learning_rate(done)
            noisy = w + normal(*w.shape) * spread * options.noise_of_w(done)
            noise = torch.cat([one.flatten(1) for one in maps], 1) if maps else None
            distances = distance(space.images(noisy.expand(-1, space.num_ws, -1), noise))
            loss = distances.sum()
            if maps:
                loss = loss + options.noise_weight * torch.stack([correlations(one) for one in maps]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            normalize_(maps)
            if step % 10 == 9 or step + 1 == options.steps:
                progress(step + 1, distances.detach())
    return w.detach().expand(-1, space.num_ws, -1).contiguous()


def correlations(maps: Tensor) -> Tensor:
    """Sum over noise maps [N, side, side] of how much neighbours in them agree, at all scales down to 8 pixels or less.

    0 for white noise, in the mean; StyleGAN2, eq. 12.
    """
    pyramid = maps[:, None]
    total = maps.new_zeros(())
    while True:
        for axis in (2, 3):
            total = total + (pyramid * pyramid.roll(1, axis)).mean((1, 2, 3)).square().sum()
        if pyramid.shape[2] <= 8:
            return total
        pyramid = F.avg_pool2d(pyramid, 2)


@torch.no_grad()
def normalize_(maps: list[Tensor]) -> None:
    """Brings each noise map [N, side, side] back to a mean of 0 and a mean square of 1."""
    for one in maps:
        one -= one.mean((1, 2), keepdim=True)
        one *= one.square().mean((1, 2), keepdim=True).rsqrt()
