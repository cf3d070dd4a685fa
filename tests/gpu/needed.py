"""Prints the packages to carry to a machine that has PyTorch, one `name==version` a line: those installed here.

    python tests/gpu/needed.py [NAME ...]

Names are left out, with what only they need. What PyTorch itself brings is left out too. ``TARGET`` in the environment
is the other machine's Python, 3.12 unless it is given.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: Of this project, and of the parts of `tests.gpu`.
ROOTS = (
    "gesso[zero,video,markers]",
    "optuna",
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "torch-fidelity",
    "scikit-image",
)
PRESENT = {"torch", "torchvision", "gesso"}
#: Of the machine that they are for.
PYTHON = os.environ.get("TARGET", "3.12")


def needed(roots: tuple[str, ...], without: set[str]) -> dict[str, str]:
    """All packages that ``roots`` need, with their versions, by name."""
    environment = {**default_environment(), "python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen or name in without - {"gesso"}:
                continue
            seen.add((name, extra))
            found[name] = version(name)
            for text in requires(name) or []:
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({**environment, "extra": extra}):
                    waiting.append(further)
    return {name: found[name] for name in sorted(found) if name not in without}


def main() -> int:
    """Prints them; 1 where one is not installed here."""
    without = PRESENT | {canonicalize_name(name) for name in sys.argv[1:]}
    try:
        packages = needed(ROOTS, without)
    except PackageNotFoundError as error:
        print(f"{error.name} is not installed here: make .venv/.ready", file=sys.stderr)
        return 1
    for name, number in packages.items():
        print(f"{name}=={number}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
