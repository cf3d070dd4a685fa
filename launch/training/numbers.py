"""Checks the numbers of all options of a training, where they are parsed and before anything is built."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import import_module

from jsonargparse import Namespace

from gesso.common.ranges import Range, check_options

#: NumPy and torch take no others.
SEEDS = Range(0, 2**32 - 1)


def check_numbers(config: Namespace, sections: Mapping[str, type]) -> None:
    """Checks that each number is one that its option may be.

    Args:
        config: the parsed options.
        sections: what is built of each section that names no class.

    Raises:
        ValueError: a number out of its range; names the option.
    """
    seed = config.get("seed_everything")
    # Lightning takes `yes` for a seed that it draws, and `no` for none: then nothing could be repeated.
    if isinstance(seed, bool) or (isinstance(seed, int) and seed not in SEEDS):
        raise ValueError(f"seed_everything is {str(seed).lower()}; it must be a whole number {SEEDS}")
    for name, value in config.items(branches=True):
        if "." in name:
            continue
        options = _plain(value)
        if isinstance(options, Mapping):
            kind = sections.get(name) or _class(options.get("class_path"))
            check_options(kind, options.get("init_args", {}) if "class_path" in options else options, f"{name}.")


def _plain(value: object) -> object:
    if isinstance(value, Namespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _class(path: object) -> type:
    module, _, name = str(path).rpartition(".")
    with contextlib.suppress(ImportError, ValueError):
        found = getattr(import_module(module), name, None)
        return found if isinstance(found, type) else object
    return object
