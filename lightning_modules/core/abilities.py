"""What a family can do and what it needs for it: answers that callbacks and commands ask for, never its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import lightning as L
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_modules.kinds.stylizer import Style
    from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator

#: A batch on the device: ``image`` float32 NCHW in [-1, 1], ``label`` int64 [N] (-1: none), maybe ``caption``.
Batch = Mapping[str, Any]  # type: ignore[explicit-any] # tensors, but for captions and the position
#: What a family may be able to do; each is a method.
Ability = Literal["generate", "interpolate", "stylize", "translate", "sheet"]

#: How the error begins to say that a family lacks an ability.
_LACKS: dict[Ability, str] = {
    "generate": "makes no samples: it can neither generate nor be scored by them",
    "interpolate": "has no latents to interpolate between",
    "stylize": "puts no picture into another's style",
    "translate": "translates no pictures from one domain into another",
    "sheet": "has no sheet of held-out pictures to show",
}


class CannotDo(ValueError):
    """A family was asked for what it cannot do."""


class Preview(NamedTuple):
    """A grid for people: ``images`` NCHW in [-1, 1], filled row by row into ``columns`` columns."""

    images: Tensor
    columns: int


@dataclass(frozen=True)
class BatchSpec:
    """What a training batch must hold.

    Args:
        images: keys of its images, the first of which is ``image``.
        channels: of the images: 1, 3 or None (any).
        resolution: their height and width in pixels; None: any.
        num_classes: classes of ``label`` that the family is conditioned on; 0: none.
        captions: whether it is conditioned on ``caption``.
    """

    images: tuple[str, ...] = ("image",)
    channels: int | None = None
    resolution: int | None = None
    num_classes: int = 0
    captions: bool = False


class Abilities(L.LightningModule):
    """What every family can be asked; a kind of family overrides what it can do."""

    def abilities(self) -> frozenset[Ability]:
        """What this family can do."""
        return frozenset(name for name in _LACKS if getattr(type(self), name) is not getattr(Abilities, name))

    def described(self) -> str:
        """The family in an error's words: ``a VAE``, ``an AdaIN``."""
        name = type(self).__name__
        return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"

    def require(self, ability: Ability) -> None:
        """Raises a ``CannotDo``, in one line, when the family lacks an ability."""
        if ability not in self.abilities():
            self._cannot(ability)

    def _cannot(self, ability: Ability) -> NoReturn:
        raise CannotDo(f"{self.described()} {_LACKS[ability]}")

    # ---- what it makes ----------------------------------------------------------------------------------------------

    def generate(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """Samples number ``index`` (int64 [N]) of the infinite sequence ``seed``: NCHW in [-1, 1].

        Each sample depends on (seed, index) alone, so that any number of ranks makes the same set.

        Raises:
            CannotDo: this family makes no samples.
        """
        self._cannot("generate")

    def interpolate(self, *, pairs: int, steps: int, seed: int) -> Preview:
        """``pairs`` rows, each of ``steps`` images between two random samples.

        Raises:
            CannotDo: this family has no latents.
        """
        self._cannot("interpolate")

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """The content picture [1, 3, H, W] in one or several styles: see ``kinds.stylizer.Stylizer``.

        Raises:
            CannotDo: this family does not stylise.
        """
        self._cannot("stylize")

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """Images [N, C, H, W] in [-1, 1] of one domain, put into the other: see ``kinds.translating``.

        Raises:
            CannotDo: this family does not translate.
        """
        self._cannot("translate")

    def directions(self) -> tuple[str, ...]:
        """What ``translate`` takes as direction, the main one first; empty: it does not translate."""
        return ()

    def known_direction(self, name: str | None) -> str:
        """One of ``directions`` by name; None: the main one.

        Raises:
            ValueError: the family does not translate, or not this way.
        """
        self.require("translate")
        known = self.directions()
        if name is not None and name not in known:
            raise ValueError(f"direction {name}: {self.described()} translates {' and '.join(known)}")
        return known[0] if name is None else name

    def sheet(self, held_out: Batch) -> Preview:
        """A grid that shows what the family makes of held-out pictures.

        Raises:
            CannotDo: it makes nothing of pictures.
        """
        self._cannot("sheet")

    # ---- what it needs ----------------------------------------------------------------------------------------------

    def batch_spec(self) -> BatchSpec:
        """What a training batch must hold; from the options ``channels``, ``resolution`` and ``num_classes``."""
        options = self.hparams
        return BatchSpec(
            channels=options.get("channels"),
            resolution=options.get("resolution"),
            num_classes=options.get("num_classes") or 0,
        )

    def example_batch(self, count: int) -> Batch:
        """A batch of noise in the shapes that training takes: what a plan of memory runs on.

        Raises:
            ValueError: ``batch_spec`` names no resolution.
        """
        spec = self.batch_spec()
        if spec.resolution is None:
            raise ValueError(f"{self.described()} names no resolution in batch_spec: no batch can be made up for it")
        shape = (count, spec.channels or 3, spec.resolution, spec.resolution)
        return {
            **{key: torch.rand(shape) * 2 - 1 for key in spec.images},
            "label": torch.arange(count) % max(spec.num_classes, 1),
            **({"caption": [""] * count} if spec.captions else {}),
            "index": torch.arange(count),
            "position": count,
        }

    def pictures(self) -> dict[str, tuple[str, ...]]:
        """Option -> files of pictures that training needs beside its batches; they are read before it begins."""
        return {}

    def take_pictures(self, option: str, pictures: Sequence[Tensor]) -> None:
        """Hands over the ``pictures`` of an option, [1, 3, H, W] in [-1, 1] each."""
        raise NotImplementedError(option)

    # ---- how good it is ---------------------------------------------------------------------------------------------

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """What measures this family; None: nothing does.

        Raises:
            ValueError: a metric is asked for that cannot be measured of it.
        """
        if options.metrics:
            raise CannotDo(
                f"{options.option}: {', '.join(options.metrics)} cannot be measured of {self.described()}, which "
                "neither generates, stylises nor translates: leave the option out"
            )
        return None
