"""Pictures and folders of pictures through a function, one file after the other: one broken file costs no folder."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gesso.common.pictures import PICTURE_SUFFIXES, is_picture


class Job(NamedTuple):
    """A picture to read and the file to write."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """What is to be done: the ``jobs``, and the file or folder ``out`` that they end in."""

    jobs: list[Job]
    out: Path
    single: bool


def pictures_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name."""
    found = sorted(file for file in folder.iterdir() if is_picture(file))
    if not found:
        raise FileNotFoundError(f"{folder}: no picture here ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return found


def plan(inputs: Sequence[Path], out: str | None, done: str, *, suffix: str = ".png") -> Plan:
    """Where the results of pictures and folders of pictures go.

    Args:
        inputs: pictures and folders; what is no folder is taken for a picture.
        out: file of a single picture, else folder; None: beside the input, as ``NAME-DONE``.
        done: what is done to them: ``stylized``.
        suffix: of a single input's file.

    Raises:
        FileNotFoundError: a folder without pictures.
        ValueError: several inputs without ``out``, or two pictures that would be written to one file.
    """
    first = inputs[0]
    single = len(inputs) == 1 and not first.is_dir()
    if out is None and len(inputs) > 1:
        raise ValueError(f"{len(inputs)} pictures or folders: name a folder for the results with --out")
    name = f"{first.name}-{done}" if first.is_dir() else f"{first.stem}-{done}{suffix}"
    where = Path(out) if out else first.with_name(name)
    if single:
        return Plan([Job(first, where)], where, single)
    files = [file for given in inputs for file in (pictures_in(given) if given.is_dir() else [given])]
    stems = Counter(file.stem for file in files)
    # Of a.jpg and a.png, the former becomes a.jpg.png.
    whole = {file for file in files if stems[file.stem] > 1 and file.suffix.lower() != ".png"}
    jobs = [Job(file, where / f"{file.name if file in whole else file.stem}.png") for file in files]
    writers: dict[Path, Path] = {}
    for source, target in jobs:
        if (other := writers.setdefault(target, source)) != source:
            raise ValueError(f"{other} and {source} would both become {target}: rename one of them")
    return Plan(jobs, where, single)


def run(planned: Plan, work: Callable[[Path, Path], object], progress: Callable[[int], None]) -> int:
    """Does the jobs in turn, and says which failed.

    Args:
        planned: the jobs.
        work: reads the first file and writes the second.
        progress: called with the number of jobs done.

    Returns:
        How many pictures could not be read or worked on; a single one that cannot is an error instead.

    Raises:
        ValueError, FileNotFoundError: of a single picture.
    """
    failed = 0
    for number, (source, target) in enumerate(planned.jobs, 1):
        try:
            work(source, target)
        except (ValueError, FileNotFoundError) as error:
            if planned.single:
                raise
            print(f"gesso: {error}", file=sys.stderr)
            failed += 1
        progress(number)
    return failed
