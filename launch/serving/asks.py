"""What can be asked of a model, with everything that was sent decoded and checked as far as that needs no model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

Verb = Literal["generate", "stylize", "translate"]
#: How samples are made, as ``Abilities.sample_with`` takes it: names and values, sorted.
Sampling: TypeAlias = tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Generate:
    """A sample: number ``seed`` of the infinite sequence ``sequence``.

    Args:
        seed: its number.
        sequence: what is ``--seed`` of ``gesso generate``.
        label: its class; None: as the family chooses.
        sampling: how it is made.
    """

    seed: int = 0
    sequence: int = 0
    label: int | None = None
    sampling: Sampling = ()

    verb: Verb = field(default="generate", init=False)

    @property
    def key(self) -> Hashable:
        """What may be made in one batch has the same key."""
        return self.verb, self.sequence, self.sampling


@dataclass(frozen=True, eq=False)
class Stylize:
    """A picture in the style of others.

    Args:
        content: uint8 [H, W, 3].
        styles: uint8 [H', W', 3] each; none for a model that has styles of its own.
        weights: how much of each; None: equally much.
        alpha: from 0 (the content) to 1.
        size: longer side of the result in pixels.
    """

    content: np.ndarray
    styles: tuple[np.ndarray, ...] = ()
    weights: tuple[float, ...] | None = None
    alpha: float = 1.0
    size: int | None = None

    verb: Verb = field(default="stylize", init=False)

    @property
    def key(self) -> Hashable:
        """Its own: families stylise pictures one by one."""
        return self.verb, id(self)


@dataclass(frozen=True, eq=False)
class Translate:
    """A picture of one domain as one of the other.

    Args:
        picture: uint8 [H, W, C].
        direction: which way; None: the main one.
        style: uint8 [H', W', C], a picture in whose style; None: that of ``style_seed``.
        style_seed: of a drawn style; None: the family's choice.
        size: longer side of the result in pixels.
    """

    picture: np.ndarray
    direction: str | None = None
    style: np.ndarray | None = None
    style_seed: int | None = None
    size: int | None = None

    verb: Verb = field(default="translate", init=False)

    @property
    def key(self) -> Hashable:
        styled = self.style is not None or self.style_seed is not None
        return self.verb, self.direction, styled, self.picture.shape, self.size


Ask: TypeAlias = Generate | Stylize | Translate


def sampling_of(changes: Mapping[str, object]) -> Sampling:
    """The options that were given, of those that may be."""
    return tuple(sorted((name, value) for name, value in changes.items() if value is not None))
