"""The runs below some folders, as a page of them needs them."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from launch.checkpoints.files import is_complete
from launch.report.pieces import is_number
from launch.report.record import Metric, Record, find_pictures, read_record
from launch.runs.folder import RunFolder

#: How far below a folder runs are looked for: a sweep has its trials in runs/SWEEP/trials/.
DEPTH = 3
#: Folders of a run itself, in which there are no other runs.
_OWN = frozenset({"checkpoints", "samples", "averages", "evaluations", "slurm", "wandb"})


@dataclass(frozen=True)
class Row:
    """A run in the list of all.

    Args:
        key: its name in addresses, see ``find_runs``.
        name: its own.
        state: that of run.json; ``damaged`` where it cannot be read.
        family: of its model.
        kimg, total_kimg: images seen and of the whole training, in thousands; 0 where it is not known.
        score: its first metric in words; empty before the first evaluation.
        images_per_second: the last measured speed; 0 before there is one.
        changed: Unix time of its last sign of life.
        picture: its last samples.
    """

    key: str
    name: str
    state: str
    family: str
    kimg: float
    total_kimg: float
    score: str
    images_per_second: float
    changed: float
    picture: Path | None


def find_runs(folders: Sequence[Path]) -> dict[str, RunFolder]:
    """The runs in and below folders by key, the newest first.

    A key is the path below the folder, behind the folder's number where there are several; an address can only name
    what was found here.

    Raises:
        FileNotFoundError: one of the folders is not there.
    """
    found: dict[str, RunFolder] = {}
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; `gesso fit` makes runs under runs/")
        for run in _below(folder, DEPTH):
            own = run.relative_to(folder).as_posix()
            key = folder.resolve().name if own == "." else own
            found[f"{number}:{key}" if len(folders) > 1 else key] = RunFolder(run)
    return dict(sorted(found.items(), key=lambda one: -_changed(one[1])))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "config.yaml").is_file() or (folder / "run.json").is_file():
        yield folder
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            # A link may lead back up, or to a run that is listed already.
            inner = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in inner:
        if name not in _OWN and not name.startswith("."):
            yield from _below(folder / name, depth - 1)


def row_of(key: str, run: RunFolder) -> Row:
    """A run's row; a damaged run has one too."""
    try:
        record = read_record(run.path)
    except (OSError, ValueError):
        return Row(key, run.path.name, "damaged", "", 0.0, 0.0, "", 0.0, _changed(run), None)
    metrics, samples = record.metrics(), record.pictures.get("samples", [])
    return Row(
        key,
        record.name,
        record.state,
        str(record.info.get("family") or ""),
        max(_number(record.info, "kimg"), _logged(record)),
        _number(record.info, "total_kimg"),
        _score(metrics[0]) if metrics else "",
        record.series.get("images_per_second", [(0.0, 0.0)])[-1][1],
        _changed(run),
        samples[-1][1] if samples else None,
    )


def version_of(run: RunFolder) -> str:
    """A text that changes when the run logs, draws, saves or measures something."""
    places = (
        run.path / "run.json",
        run.config,
        run.metrics,
        run.samples,
        run.checkpoints,
        run.path / "evaluations",
    )
    return "-".join(f"{_stamp(place):x}" for place in places)


def thumbnail(run: RunFolder) -> bytes | None:
    """The upper left part of a run's last samples, as a PNG of at most 144 x 144 pixels; None: there are none yet."""
    files = find_pictures(run.samples).get("samples")
    if not files:
        return None
    try:
        with Image.open(files[-1][1]) as opened:
            side = min(opened.size[0], opened.size[1], 288)
            small = opened.convert("RGB").crop((0, 0, side, side))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((144, 144))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    return stream.getvalue()


def checkpoints_of(run: RunFolder) -> list[Path]:
    """The complete checkpoints, the newest first."""
    found = [path for path in run.checkpoints.glob("[0-9]*[0-9]") if is_complete(path)]
    return sorted(found, key=lambda path: path.name, reverse=True)


def _score(metric: Metric) -> str:
    best = f", best {metric.best[1]:.4g}" if metric.best and metric.best[1] != metric.points[-1][1] else ""
    return f"{metric.name} {metric.points[-1][1]:.4g}{best}"


def _logged(record: Record) -> float:
    return max((kimg for points in record.series.values() for kimg, _ in points), default=0.0)


def _number(info: Mapping[str, Any], name: str) -> float:
    value = info.get(name)
    return float(value) if is_number(value) and math.isfinite(value) else 0.0


def _changed(run: RunFolder) -> float:
    return max(_stamp(place) for place in (run.path / "run.json", run.metrics, run.config)) / 1e9


def _stamp(place: Path) -> int:
    try:
        return place.stat().st_mtime_ns
    except OSError:
        return 0
