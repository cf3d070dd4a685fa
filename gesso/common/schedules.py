"""Numbers that change over a training, as pure functions of the images seen: checkpoints need not store them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from gesso.common.ranges import NonNegative, Positive, check_options

#: How a number gets from its first value to its last one.
Course = Literal["linear", "cosine"]


def remaining(course: Course, kimg: float, begins: float, ends: float) -> float:
    """Share of the way that is left after ``kimg`` thousand images: 1 until ``begins``, 0 from ``ends`` on."""
    left = 1 - min(max(kimg - begins, 0.0) / max(ends - begins, 1e-9), 1.0)
    return (1 + math.cos(math.pi * (1 - left))) / 2 if course == "cosine" else left


@dataclass(frozen=True)
class Schedule:
    """A number that goes from ``start`` to ``end`` while the training goes on.

    Args:
        start: its value at the beginning.
        end: its value from ``over_kimg`` on.
        over_kimg: thousands of images after which it has arrived, counted from the start of training; None: the length
            of the training.
        hold_kimg: thousands of images until which it stays at ``start``.
        course: ``cosine`` (half a period: slow at both ends) or ``linear``.

    Raises:
        ValueError: ``over_kimg`` is not more than ``hold_kimg``.
    """

    start: float
    end: float
    over_kimg: Positive | None = None
    hold_kimg: NonNegative = 0.0
    course: Course = "cosine"

    #: Fields that are values of the number itself: the range of an option that may be a schedule holds for them.
    values: ClassVar[tuple[str, ...]] = ("start", "end")

    def __post_init__(self) -> None:
        check_options(Schedule, vars(self))
        if self.over_kimg is not None and self.over_kimg <= self.hold_kimg:
            raise ValueError(f"over_kimg is {self.over_kimg}; it must be more than hold_kimg ({self.hold_kimg:g})")

    def at(self, images_seen: int, *, total_kimg: float | None = None) -> float:
        """The value in the step that starts after ``images_seen`` images.

        Args:
            images_seen: number of images trained on before this step.
            total_kimg: length of the training in thousands of images, used where ``over_kimg`` is None.

        Raises:
            ValueError: neither ``over_kimg`` nor ``total_kimg`` is given.
        """
        ends = self.over_kimg if self.over_kimg is not None else total_kimg
        if ends is None:
            raise ValueError("a schedule needs over_kimg, since nothing says how long training is")
        left = remaining(self.course, images_seen / 1000, self.hold_kimg, ends)
        return self.end + (self.start - self.end) * left


def at(value: float | Schedule, images_seen: int, *, total_kimg: float | None = None) -> float:
    """The present value of a number that may have a schedule: see ``Schedule.at``."""
    return value.at(images_seen, total_kimg=total_kimg) if isinstance(value, Schedule) else value


def largest(value: float | Schedule) -> float:
    """The largest value of a number that may have a schedule."""
    return max(value.start, value.end) if isinstance(value, Schedule) else value
