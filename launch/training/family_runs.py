"""Other runs whose weights a new training begins with: teachers."""

from __future__ import annotations

from functools import partial

from launch.inference.loading import hand_over
from lightning_modules.core.family import ImageFamily


def load_runs(module: ImageFamily) -> None:
    """Gives a family the runs that it begins with; a resumed training has all that it needs in its checkpoint.

    Raises:
        FileNotFoundError, ValueError: there is no such run, or it does not fit; names the option.
    """
    for option, path in module.runs().items():
        hand_over(option, path, partial(module.take_run, option))
