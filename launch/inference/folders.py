"""Pictures and folders of pictures through a function, one file after the other: one broken file costs no folder."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gesso.common.pictures import PICTURE_SUFFIXES, is_picture
from launch.inference.pictures import check_ending, check_free, is_ours


class Job(NamedTuple):
    """A picture to read and the file to write."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """What is to be done: the ``jobs``, and the file or folder ``out`` that they end in."""

    jobs: list[Job]
    out: Path
    single: bool


def pictures_in(folder: Path, *, without: Path | None = None) -> list[Path]:
    """The image files of a folder and the folders in it, by name; nothing hidden.

    Args:
        without: a folder in it that is passed over: where the results go.

    Raises:
        FileNotFoundError: there are none.
    """
    found = []
    skipped = None if without is None else without.resolve()
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and Path(where, name).resolve() != skipped
        )
        found += [Path(where, name) for name in sorted(names) if is_picture(name)]
    if not found:
        raise FileNotFoundError(f"{folder}: no picture here ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return found


def plan(
    inputs: Sequence[Path],
    out: str | None,
    done: str,
    *,
    suffix: str = ".png",
    ours: Callable[[Path], bool] = is_ours,
    results: Path | None = None,
) -> Plan:
    """Where the results of pictures and folders of pictures go; a folder's own folders are kept apart.

    Args:
        inputs: pictures and folders; what is no folder is taken for a picture.
        out: file of a single picture, else folder; None: beside the input, as ``NAME-DONE``.
        done: what is done to them: ``stylized``.
        suffix: of a single input's file.
        ours: whether a file is an earlier result, which may be replaced.
        results: the folder that holds these results and others, no picture of which is taken; None: ``out``.

    Raises:
        FileNotFoundError: a folder without pictures.
        ValueError: several inputs without ``out``; a result that would take the place of an input, of another result or
            of a file that is none of ours; or a name whose ending is no format's, see ``check_ending``.
    """
    if out == "":
        raise ValueError("--out is empty: name a file or folder")
    first = inputs[0]
    single = len(inputs) == 1 and not first.is_dir()
    if out is None and len(inputs) > 1:
        raise ValueError(f"{len(inputs)} pictures or folders: name a folder for the results with --out")
    # Of "." and "..", the name is that of the folder.
    named = first.resolve() if first.name in ("", "..") else first
    name = f"{named.name}-{done}" if first.is_dir() else f"{first.stem}-{done}{suffix}"
    where = Path(out) if out else named.with_name(name)
    if single:
        jobs = [Job(first, where if suffix == ".mp4" else check_ending(where))]
    else:
        if where.exists() and not where.is_dir():
            raise ValueError(f"{where} is a file: name a folder for the results of several pictures")
        jobs = _jobs(inputs, where, results or where)
    sources = {source.resolve(): source for source, _ in jobs}
    for source, target in jobs:
        if (taken := sources.get(target.resolve())) is not None:
            raise ValueError(f"{taken} would be replaced by what is made of {source}: give another --out")
        check_free(target, ours=ours)
    return Plan(jobs, where, single)


def _jobs(inputs: Sequence[Path], where: Path, results: Path) -> list[Job]:
    """The pictures of ``inputs`` but for those in ``results``, and the PNG files in ``where`` that are made of them."""
    files = []
    for given in inputs:
        if given.is_dir():
            files += [(file, where / file.parent.relative_to(given)) for file in pictures_in(given, without=results)]
        else:
            files.append((given, where))
    stems = Counter(folder / file.stem for file, folder in files)
    writers: dict[Path, Path] = {}
    jobs = []
    for file, folder in files:
        # Of a.jpg and a.png, the former becomes a.jpg.png.
        whole = stems[folder / file.stem] > 1 and file.suffix.lower() != ".png"
        target = folder / f"{file.name if whole else file.stem}.png"
        if (other := writers.setdefault(target, file)) != file:
            raise ValueError(f"{other} and {file} would both become {target}: rename one of them")
        jobs.append(Job(file, target))
    return jobs


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
