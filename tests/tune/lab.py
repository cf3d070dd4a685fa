"""What the tests do with sweeps: start small ones as a person would, and read what came of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.forks import Fork
from tune.sweep import Sweep, open_sweep
from tune.watch import Row, read_rows

#: Of tests with whole sweeps: Ray and its workers start slowly where others work beside them.
WHOLE_SWEEPS = [pytest.mark.slow, pytest.mark.timeout(1800)]
#: A space around the planted optimum.
RANGES = {"first": "loguniform(1, 9)", "second": "loguniform(0.07, 0.6)"}


def gesso(*arguments: str, code: int = 0) -> str:
    """Runs ``gesso`` in a process of its own, as where Ray dies it takes its process with it; returns what it said."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        returned = Fork("gesso.cli.main", arguments, log).wait()
        said = log.read_text()
    assert returned == code, said
    return said


@dataclass(frozen=True)
class Lab:
    """Sweeps of trainings that take a second.

    Args:
        recipe: of the planted family.
        root: of the sweeps.
    """

    recipe: Path
    root: Path

    def space(self, **dimensions: object) -> Path:
        """A space's file; ``model.`` goes without saying."""
        file = self.root / f"space-{len(list(self.root.glob('space-*')))}.yaml"
        file.write_text(yaml.safe_dump({f"model.{name}": entry for name, entry in dimensions.items()}, sort_keys=False))
        return file

    def arguments(self, space: Path, *more: str) -> list[str]:
        """Of the command line: ``tune`` and what follows."""
        return [
            *("tune", f"--config={self.recipe}", f"--space={space}"),
            *("--metric=val/planted", f"--root={self.root / 'sweeps'}", *more),
        ]

    def run(self, space: Path, *more: str) -> tuple[Sweep, list[Row]]:
        """Runs a sweep to its end."""
        gesso(*self.arguments(space, *more))
        return self.last()

    def last(self) -> tuple[Sweep, list[Row]]:
        """The newest sweep, and its trials."""
        file = max((self.root / "sweeps").glob("*/sweep.json"), key=lambda file: file.stat().st_mtime)
        sweep = open_sweep(file.parent)
        return sweep, read_rows(sweep)
