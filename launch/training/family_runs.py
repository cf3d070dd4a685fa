"""Other runs whose weights a new training begins with: teachers."""

from __future__ import annotations

from launch.inference.loading import load_family
from lightning_modules.core.family import ImageFamily


def load_runs(module: ImageFamily) -> None:
    """Gives a family the runs that it begins with; a resumed training has all that it needs in its checkpoint.

    Raises:
        FileNotFoundError, ValueError: there is no such run, or it does not fit; names the option.
    """
    for option, path in module.runs().items():
        try:
            other, _ = load_family(path)
            module.take_run(option, other)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"--model.{option} {path}: {str(error).removeprefix(f'{path}: ')}") from error
