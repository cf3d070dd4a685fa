"""Style transfer by optimising the picture itself (Gatys, Ecker and Bethge 2016), coarse to fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.kinds.stylizer import Style
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.sizes import fit, resize
from lightning_modules.style.picture_loss import PictureLoss

#: Iterations between two reports. Each begins with an evaluation of its own, so they had better not be single.
ROUND = 10

Start = Literal["content", "style", "noise"]


@dataclass(frozen=True)
class Scale:
    """One round of the optimisation.

    Args:
        side: of the picture's longer side, in pixels.
        steps: iterations of L-BFGS.
        losses: the total loss before the first iteration, every ``ROUND`` of them, and at the end.
    """

    side: int
    steps: int
    losses: tuple[float, ...]


class StyleOptimization:
    """A picture whose features are a photograph's and whose Gram matrices are a painting's.

    Minimises content_weight * content + style_weight * style + tv_weight * tv over the pixels with L-BFGS, first small,
    then larger (Gatys et al. 2017, "Controlling Perceptual Factors"): coarse strokes come from the small picture.

    Args:
        encoder: VGG19 with real weights.
        content_weight: of the content's features at relu4_2.
        style_weight: of the Gram matrices, averaged over the five layers of the paper.
        tv_weight: of the total variation.
        steps: iterations at the smallest scale; each larger one takes half of the one before, 20 at least.
        smallest: longer side of the smallest scale in pixels; each next one is twice as large.
        start: what the picture is at first.
        seed: of the noise.
        progress: called every ``ROUND`` iterations with (iterations done, iterations in all, loss).
    """

    def __init__(
        self,
        encoder: VGG19,
        *,
        content_weight: float = 1.0,
        style_weight: float = 100.0,
        tv_weight: float = 0.1,
        steps: int = 200,
        smallest: int = 256,
        start: Start = "content",
        seed: int = 0,
        progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
    ) -> None:
        if min(content_weight, style_weight, tv_weight) < 0 or steps < 1 or smallest < 16:
            raise ValueError("weights must be 0 or more, steps 1 or more, and the smallest scale 16 pixels or more")
        self.encoder = encoder
        self.content_weight = content_weight
        self.style_weight = style_weight
        self.tv_weight = tv_weight
        self.steps = steps
        self.smallest = smallest
        self.start = start
        self.seed = seed
        self.progress = progress
        #: How the last picture came about.
        self.scales: list[Scale] = []

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """See ``Stylizer``; ``alpha`` scales the style's weight. Each style is brought to the content's longer side."""
        # Gradients are needed here, whatever the caller wants of networks.
        with torch.inference_mode(False), torch.enable_grad():
            return self._optimised(content, style, tile)

    def _optimised(self, content: Tensor, style: Style, tile: int | None) -> Tensor:
        count = len(style.pictures)
        # Only what a mask covers is compared with its style.
        share = style.shares(content, count) * style.cover(content, count)
        sides = self._sides(max(content.shape[2:]))
        plan = [max(self.steps >> number, min(20, self.steps)) for number in range(len(sides))]
        self.scales = []
        picture: Tensor | None = None
        for side, steps in zip(sides, plan, strict=True):
            small = fit(content, side)
            before = self._first(small, style.pictures[0]) if picture is None else resize(picture, small.shape[2:])
            loss = PictureLoss(
                self.encoder,
                small,
                [fit(picture, side) for picture in style.pictures],
                share,
                content_weight=self.content_weight,
                style_weight=self.style_weight * style.alpha,
                tv_weight=self.tv_weight,
                tile=tile,
            )
            picture, losses = self._minimise(before, loss, steps, sum(s.steps for s in self.scales), sum(plan))
            self.scales.append(Scale(side, steps, losses))
        assert picture is not None
        return picture.clamp(-1, 1)

    def _sides(self, longest: int) -> list[int]:
        sides = [longest]
        while sides[-1] > 1.5 * self.smallest:
            sides.append(-(-sides[-1] // 2))
        return sides[::-1]

    def _first(self, content: Tensor, style: Tensor) -> Tensor:
        if self.start == "content":
            return content.clone()
        if self.start == "style":
            return resize(style, content.shape[2:])
        generator = torch.Generator().manual_seed(self.seed)
        return (torch.randn(content.shape, generator=generator) * 0.3).to(content).clamp(-1, 1)

    def _minimise(
        self, before: Tensor, loss: PictureLoss, steps: int, done: int, in_all: int
    ) -> tuple[Tensor, tuple[float, ...]]:
        # L-BFGS takes products over the whole picture: it wants it contiguous, whatever the encoder prefers.
        pixels = before.detach().contiguous().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [pixels], history_size=20, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            value, pixels.grad = loss.with_gradient(pixels)
            return value

        losses = []
        for first in range(0, steps, ROUND):
            iterations = min(ROUND, steps - first)
            optimizer.param_groups[0].update(max_iter=iterations, max_eval=2 * iterations)
            losses.append(float(optimizer.step(closure)))
            self.progress(done + first + iterations, in_all, losses[-1])
        losses.append(float(loss.with_gradient(pixels)[0]))
        return pixels.detach(), tuple(losses)
