"""What a trial has reported, in a file of its run folder: written before Ray Tune is told, and so never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JOURNAL = "reports.jsonl"


@dataclass(frozen=True)
class Report:
    """One evaluation of a trial.

    Args:
        images_seen: by its networks.
        metrics: everything that was logged by then, each with its last value.
        config: what was drawn and has been trained with since the report before.
        parent: the trial whose networks these were until then; None for its own.
    """

    images_seen: int
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    parent: str | None = None

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000


class Journal:
    """The reports of one trial, the oldest first."""

    def __init__(self, run: Path) -> None:
        self.file = run / JOURNAL

    def read(self) -> list[Report]:
        """All reports; a line that was being written when the process was killed is none."""
        if not self.file.is_file():
            return []
        lines = self.file.read_text().splitlines(keepends=True)
        return [Report(**json.loads(line)) for line in lines if line.endswith("\n")]

    def add(self, report: Report) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # By whole lines: what follows half a line would be lost with it.
        self.keep([*self.read(), report])

    def keep(self, reports: Sequence[Report]) -> None:
        """Leaves these reports alone."""
        partial = self.file.with_name(f"{JOURNAL}.partial")
        partial.write_text("".join(json.dumps(asdict(report)) + "\n" for report in reports))
        partial.replace(self.file)
