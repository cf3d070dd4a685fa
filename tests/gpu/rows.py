"""Rows of the table that `python -m tests.gpu` prints and keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Row:
    """One thing that was tried.

    Args:
        part: the part that tried it.
        name: what; rows of one part and name share a line of the table.
        variant: which of several, such as the precision.
        value: what was measured, in ``unit``.
        detail: why it was skipped, the last line of its error, or what else there is to know.
    """

    part: str
    name: str
    variant: str = ""
    state: State = "ok"
    value: float | None = None
    unit: str = ""
    detail: str = ""

    def figure(self) -> str:
        """The row's cell in the table: ``bf16-mixed 12.3 ms``."""
        what = self.state.upper() if self.state == "failed" else self.state
        if self.state == "ok" and self.value is not None:
            what = f"{_short(self.value)} {self.unit}".strip()
        return f"{self.variant} {what}".strip()


def _short(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1e}"


def read(file: Path) -> list[Row]:
    """The rows of a file of JSON lines; of one whose writer was killed, those that are whole."""
    lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
    # What follows the last line feed was still being written.
    return [Row(**json.loads(line)) for line in lines[:-1]]


def append(file: Path, row: Row) -> None:
    """Adds a row to a file of JSON lines."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(row)) + "\n")


def keep(file: Path, machine: dict[str, Any], rows: Iterable[Row], seconds: dict[str, float]) -> None:
    """Writes what is kept of a run: the machine, how long each part took, and all rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = {"machine": machine, "seconds": seconds, "rows": [asdict(row) for row in rows]}
    file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def show(rows: list[Row], title: str) -> None:
    """Prints the table: a line for each part and name, its variants side by side, and the reasons of what is not ok."""
    table = Table(title=title, show_lines=False)
    for column in ("part", "what", "figures"):
        table.add_column(column)
    for part, name in dict.fromkeys((row.part, row.name) for row in rows):
        own = [row for row in rows if (row.part, row.name) == (part, name)]
        figures = ", ".join(row.figure() for row in own if row.state != "skipped")
        skipped = [row.variant for row in own if row.state == "skipped"]
        if skipped:
            figures = f"{figures}\nskipped: {', '.join(skipped)}".strip().removesuffix(": ").removesuffix(":")
        reasons = list(dict.fromkeys(row.detail for row in own if row.detail))
        table.add_row(part, name, "\n".join([figures, *(f"  {reason}" for reason in reasons)]))
    console = Console(width=150)
    console.print(table, markup=False)
    counts = {state: sum(row.state == state for row in rows) for state in ("ok", "failed", "skipped")}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))
