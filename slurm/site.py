"""Site defaults: options of `gesso slurm submit` from a file, for those that stay the same on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gesso.common.strict_yaml import read_yaml

NAME = "slurm.yaml"


def files() -> list[Path]:
    """The files that may hold defaults; later ones override earlier ones."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "gesso" / NAME, Path(NAME)]


def defaults(options: Iterable[str], convert: Callable[[str, object], Any]) -> dict[str, Any]:
    """The defaults of the user, overridden by those of the project in the working directory.

    Args:
        options: names of the options that may be set (``gpus_per_node``).
        convert: turns an option's name and its value in the file into what the option takes, or raises a ValueError.

    Returns:
        option -> value.

    Raises:
        ValueError: a file is not a mapping of known options, or a value is not what its option takes.
    """
    known, found = set(options), {}
    for file in files():
        if not file.is_file():
            continue
        content = read_yaml(file)
        if content is None:
            continue
        if not isinstance(content, dict):
            raise ValueError(f"{file}: not a mapping of options, such as `partition: gpu`")
        named = {str(name).replace("-", "_"): value for name, value in content.items()}
        if unknown := sorted(named.keys() - known):
            raise ValueError(f"{file}: no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
        for name, value in named.items():
            try:
                found[name] = convert(name, value)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error
    return found
