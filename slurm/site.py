"""Site defaults: options of `gesso slurm submit` from a file, for those that stay the same on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

NAME = "slurm.yaml"


def files() -> list[Path]:
    """The files that may hold defaults; later ones override earlier ones."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "gesso" / NAME, Path(NAME)]


def defaults(options: Iterable[str]) -> dict[str, Any]:
    """The defaults of the user, overridden by those of the project in the working directory.

    Args:
        options: names of the options that may be set (``gpus_per_node``).

    Returns:
        option -> value.

    Raises:
        ValueError: a file is not a mapping of known options.
    """
    known, found = set(options), {}
    for file in files():
        if not file.is_file():
            continue
        try:
            content = yaml.safe_load(file.read_text()) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file}: not a mapping of options, such as `partition: gpu`")
        named = {str(name).replace("-", "_"): value for name, value in content.items()}
        if unknown := sorted(named.keys() - known):
            raise ValueError(f"{file}: no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
        found.update(named)
    return found
