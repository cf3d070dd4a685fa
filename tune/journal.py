"""A trial's reports in a file of its run folder, written before Ray Tune gets them, so that none is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gesso.common.files import write_whole

JOURNAL = "reports.jsonl"
#: The unit of time of all schedulers.
TIME = "kimg"


@dataclass(frozen=True)
class Report:
    """One evaluation of a trial.

    Args:
        images_seen: at the evaluation.
        metrics: last value of everything logged so far.
        config: the drawn options with which it trained since the report before.
        parent: the trial from which the networks were copied before; None: its own.
    """

    images_seen: int
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    parent: str | None = None

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    @property
    def result(self) -> dict[str, Any]:
        """The report in Ray Tune's format."""
        return {**self.metrics, TIME: self.kimg, "images_seen": self.images_seen}


class Journal:
    """The reports of one trial, the oldest first."""

    def __init__(self, run: Path) -> None:
        self.file = run / JOURNAL

    def read(self) -> list[Report]:
        """All reports."""
        if not self.file.is_file():
            return []
        return [Report(**json.loads(line)) for line in self.file.read_text().splitlines()]

    def add(self, report: Report) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.keep([*self.read(), report])

    def keep(self, reports: Sequence[Report]) -> None:
        """Replaces the journal's content by these reports."""
        write_whole(self.file, "".join(json.dumps(asdict(report)) + "\n" for report in reports))
