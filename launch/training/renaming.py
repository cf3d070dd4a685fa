"""Options of families by their older names, in recipes, overrides and the configs of runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from launch.runs.tracking import rank_zero_print
from lightning_modules.core.options import Renamed, renaming_notice, with_new_names


class OlderNames:
    """Replaces older names of options by the present ones, and collects those it found."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, ...]] = {}

    def replace(self, class_path: object, options: Mapping[str, object]) -> dict[str, object]:
        """A family's ``init_args`` with present names.

        Args:
            class_path: the family's import path.
            options: its options.
        """
        renamed = _renamed(class_path)
        current, old = with_new_names(options, renamed)
        self._found |= {name: renamed[name] for name in old}
        return current

    def paths(self, class_path: object, override: str, value: object) -> list[str]:
        """The present names of an override such as ``model.width``: one or several; most names have not changed."""
        section, _, option = override.partition(".")
        name = option.removeprefix("init_args.")
        paths = _renamed(class_path).get(name, ()) if section == "model" and not isinstance(value, Mapping) else ()
        self._found |= {name: paths} if paths else {}
        return [f"model.{path}" for path in paths] or [override]

    def report(self) -> None:
        """Prints the older names that were found, one line on stderr, once for all trainings of a process."""
        if self._found:
            _report_once(renaming_notice(list(self._found), self._found, prefix="model."))


def _renamed(class_path: object) -> Renamed:
    module, _, name = str(class_path).rpartition(".")
    # The parser reports a class that cannot be imported.
    with contextlib.suppress(ImportError, ValueError):
        return getattr(getattr(import_module(module), name, None), "renamed_options", {})
    return {}


@cache
def _report_once(line: str) -> None:
    rank_zero_print(line)
