"""The interface of what a server serves: a run, an exported file or published weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from launch.serving.asks import Ask, Verb
from lightning_modules.kinds.stylizer import check_shares


@dataclass(frozen=True)
class Facts:
    """What a client has to know of a model.

    Args:
        name: under which it is served.
        what: in a few words: ``a DCGAN, averaged weights at 120 kimg``.
        verbs: what it can do.
        channels: of the pictures that it takes or makes; None: any.
        resolution: their side in pixels; None: any.
        classes: number of its classes; 0: it has none.
        sampling: how its samples can be made, and how they are: ``{"steps": 18}``; see ``Abilities.sample_with``.
        samplers: those that it has; empty: none.
        own_styles: names of the styles that it was trained for; empty: it takes pictures.
        alpha: whether ``alpha`` has a meaning.
        directions: of its translations.
        takes_style: whether translations may be given a style.
        made_by: says where its weights come from, for credentials; clients are not told.
    """

    name: str
    what: str
    verbs: tuple[Verb, ...]
    channels: int | None = None
    resolution: int | None = None
    classes: int = 0
    sampling: Mapping[str, object] = field(default_factory=dict)
    samplers: tuple[str, ...] = ()
    own_styles: tuple[str, ...] = ()
    alpha: bool = True
    directions: tuple[str, ...] = ()
    takes_style: bool = False
    made_by: Callable[[], Mapping[str, object]] = dict


class Served(Protocol):
    """A model behind a server. One thread at a time calls ``run``."""

    @property
    def facts(self) -> Facts:
        """What it is and can do."""
        ...

    def check(self, ask: Ask) -> None:
        """Checks what can be checked without running the model; called by any thread.

        Raises:
            ValueError: it is asked for what it cannot do; one line.
        """
        ...

    def batches(self, verb: Verb) -> bool:
        """Whether it can answer several asks at once."""
        ...

    def batch(self, verb: Verb) -> int:
        """How many asks it takes at once, where it can, unless the server's owner says otherwise."""
        ...

    def exact(self, verb: Verb) -> bool:
        """Whether batches are filled up unless the server's owner says otherwise.

        Libraries sum in another order for another size of batch: the last digit of a number, and one pixel of some
        hundred thousand by 1 of 255, depends on it. Batches of one size make the same bytes.
        """
        ...

    def run(self, asks: Sequence[Ask]) -> list[np.ndarray]:
        """Answers asks of one key: uint8 [H, W, 1 or 3] each, in their order.

        Raises:
            ValueError: one of them cannot be answered; one line.
        """
        ...

    def again(self) -> Served:
        """The same model for one more thread."""
        ...


def check_verb(facts: Facts, verb: Verb) -> None:
    """Raises a ValueError unless the model can do it."""
    if verb not in facts.verbs:
        raise ValueError(f"{facts.name} is {facts.what}: it can {' and '.join(facts.verbs)}, not {verb}")


def check_label(facts: Facts, label: int | None) -> None:
    """Raises a ValueError unless the model has the class."""
    if label is not None and not 0 <= label < facts.classes:
        last = f" 0 to {facts.classes - 1}" if facts.classes else ""
        raise ValueError(f"label is {label}; {facts.name} has {'classes' if last else 'no classes'}{last}")


def check_weights(facts: Facts, styles: int, weights: Sequence[float] | None) -> None:
    """Raises a ValueError unless styles and weights are those that the model takes."""
    if facts.own_styles and styles:
        raise ValueError(f"{facts.name} has styles of its own ({', '.join(facts.own_styles)}): send no style picture")
    if not facts.own_styles and not styles:
        raise ValueError("style is missing: send one picture or more")
    count = len(facts.own_styles) or styles
    if weights is None:
        return
    if len(weights) != count:
        raise ValueError(f"weights has {len(weights)} numbers for {count} styles: give one for each")
    check_shares(weights)
