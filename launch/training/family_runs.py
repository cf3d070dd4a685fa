"""Other runs whose weights a new training begins with: teachers."""

from __future__ import annotations

from functools import partial

from launch.inference.loading import hand_over
from launch.runs.tracking import rank_zero_print
from lightning_modules.core.family import ImageFamily


def load_runs(module: ImageFamily) -> None:
    """Gives a family the runs that it begins with; a resumed training has all that it needs in its checkpoint.

    Where one is not named, says that the weights are random.

    Raises:
        FileNotFoundError, ValueError: there is no such run, it does not fit, or it is needed and not named; names the
            option.
    """
    for option, path in module.runs().items():
        if path:
            hand_over(option, path, partial(module.take_run, option))
        elif option in module.needed_runs:
            raise ValueError(
                f"--model.{option}: name the run that {module.described()} begins with; it learns from nothing else"
            )
        else:
            rank_zero_print(f"--model.{option} names no run: {module.described()} begins with random weights")
