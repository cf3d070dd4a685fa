"""A checkpoint's files: whether all are there and whole, and how they come and go without ever being half there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gesso.common.files import replacing, sha256

MARKER = "complete.json"
STATE = "state.json"
FORMAT = 1
FILE_NAME = re.compile(r"[a-z]+\.(json|safetensors)")


def verify(path: Path) -> dict[str, dict[str, Any]]:
    """Compares every file with the sizes and checksums in the marker, and returns these.

    Raises:
        ValueError: no checkpoint, an incomplete or a damaged one; one line that names the file.
    """
    files = _marker(path)
    for name, expected in files.items():
        file = path / name
        if not FILE_NAME.fullmatch(name) or file.is_symlink() or not file.is_file():
            raise ValueError(f"{path}: {name!r} is missing or no plain file: this checkpoint is damaged")
        if file.stat().st_size != expected["bytes"]:
            raise ValueError(f"{file}: {file.stat().st_size} bytes instead of {expected['bytes']}: it is damaged")
        if sha256(file) != expected["sha256"]:
            raise ValueError(f"{file}: the SHA-256 differs from {MARKER}'s: it is damaged")
    return files


def run_and_sum(checkpoint: Path) -> tuple[str, str]:
    """A checkpoint's identity: the name of its run, and the SHA-256 of all of it.

    A checkpoint's marker holds the SHA-256 of each of its files: its own stands for all. A single file, such as
    exported weights, has its own name and sum.
    """
    is_run = checkpoint.is_dir() and checkpoint.resolve().parent.name == "checkpoints"
    run = checkpoint.resolve().parent.parent.name if is_run else checkpoint.name
    return run, sha256(checkpoint / MARKER if checkpoint.is_dir() else checkpoint)


@contextlib.contextmanager
def older_one_named(path: Path | None) -> Iterator[None]:
    """Context manager: the error of a checkpoint that cannot be used says which older one of the run is there.

    Args:
        path: the checkpoint; None: the error stays as it is.
    """
    try:
        yield
    except ValueError as error:
        own = path.resolve().name if path else ""
        older = sorted(path.parent.glob("[0-9]*[0-9]")) if path else []
        older = [one for one in older if is_complete(one) and one.name < own]
        if not older:
            raise
        raise ValueError(
            f"{error}; the checkpoint before is there: name {older[-1]}, or delete {own} to go on from that one"
        ) from error


def is_complete(path: Path) -> bool:
    """Whether a checkpoint was written to its end at ``path``; whether it is still whole, ``verify`` says."""
    return (path / MARKER).is_file()


def _marker(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_dir():
        raise ValueError(f"{path}: not a gesso checkpoint, which is a folder; `gesso fit` writes them")
    if not is_complete(path):
        raise ValueError(f"{path}: not a complete checkpoint ({MARKER} is missing)")
    try:
        marker = json.loads((path / MARKER).read_text())
        if marker["format"] != FORMAT:
            raise ValueError(f"format {marker['format']}, this version reads {FORMAT}")
        files = {
            str(name): {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for name, f in marker["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / MARKER}: not readable ({type(error).__name__}: {error})") from error
    if STATE not in files:
        raise ValueError(f"{path / MARKER}: does not name {STATE}")
    return files


def partial_folder(path: Path) -> Path:
    """The folder in which a checkpoint is written before it is renamed; fixed, so that ``recover`` finds it."""
    return path.with_name(path.name + ".partial")


def remove(path: Path) -> None:
    """Deletes a checkpoint; killed in the middle, it is absent, not half there."""
    if path.is_dir():
        rubbish = path.with_name(path.name + ".removed.partial")
        discard(rubbish)
        path.rename(rubbish)
        discard(rubbish)


def recover(folder: Path) -> None:
    """Renames what was complete but not yet in its place when the writer was killed."""
    for partial in folder.glob("*[0-9].partial"):
        # Another rank may do the same at this moment.
        with contextlib.suppress(OSError):
            if is_complete(partial) and not (place := partial.with_suffix("")).exists():
                partial.rename(place)


def _set_aside(copy: Path) -> None:
    """Gives a checkpoint that a copying program has put in a link's place the name of its own; nothing is lost.

    It is deleted only where the checkpoint of that name is there, whole and the same.
    """
    images = images_seen(copy) if is_complete(copy) else -1
    own = copy.with_name(f"{images:012d}")
    if images >= 0 and is_complete(own) and _same(own, copy):
        remove(copy)
    elif images >= 0 and not os.path.lexists(own):
        copy.rename(own)
    else:
        kept = copy.with_name(f"{copy.name}-copy-{secrets.token_hex(2)}")
        copy.rename(kept)
        print(f"gesso: {copy}: a folder where a link belongs; it is {kept.name} now", file=sys.stderr)


def _same(one: Path, other: Path) -> bool:
    """Whether two complete checkpoints hold the same files, the first of which are whole."""
    try:
        return _marker(other) == verify(one)
    except ValueError:
        return False


def discard(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def newest(folder: Path) -> Path | None:
    """The complete checkpoint to go on from in a run's ``checkpoints/``; None: there is none.

    That is the one of the link ``last``. A copy of a run may have a folder in the place of the link, which stays what
    it was while training goes on: then it is the one with most images.
    """
    last = folder / "last"
    if last.is_symlink() and is_complete(last):
        return last
    complete = [path for path in (last, *folder.glob("[0-9]*[0-9]")) if is_complete(path)]
    return max(complete, key=lambda path: (images_seen(path), path.name != "last"), default=None)


def older_ones(run: Path) -> list[Path]:
    """The complete checkpoints in a run's folder but the newest, from the one with most images; [] of anything else."""
    last = newest(run / "checkpoints")
    complete = [path for path in (run / "checkpoints").glob("[0-9]*[0-9]") if is_complete(path)]
    return sorted((path for path in complete if last is None or path.name != last.resolve().name), reverse=True)


def images_seen(path: Path) -> int:
    """Images seen of a checkpoint, by its name, else by its state; -1: it does not say."""
    if path.name.isdecimal():
        return int(path.name)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((path / STATE).read_text())["gesso"]["images_seen"])
    return -1


def link(name: Path, target: Path) -> None:
    """Points the link ``name`` at its neighbour ``target``, atomically; a folder of that name is set aside before."""
    if name.is_dir() and not name.is_symlink():
        _set_aside(name)
    with replacing(name) as partial:
        partial.symlink_to(target.name)
