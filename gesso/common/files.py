"""Files that are whole or not there at all, and errors that name the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def partial_path(path: Path) -> Path:
    """A new name beside ``path`` to write to before the rename: hidden, ends in ``.partial``, another at each call.

    So that two processes, on one node or two, can write the same file at once: the last one to finish wins.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context manager: an OSError inside names ``path``, as a full disk's does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager: gives a ``partial_path`` to write to, which takes the place of ``path`` at the end.

    After an exception inside, whatever stood at ``path`` is still there, and nothing else is. Errors are left as they
    come; ``writing_whole`` makes them name the file. The file can be read by whom the umask lets, whatever a library
    that wrote it thinks of that.
    """
    partial = partial_path(path)
    try:
        yield partial
        open_to_others(partial)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def open_to_others(file: Path) -> None:
    """Gives a file that a library has written the permissions of any new file: safetensors lets only its owner read.

    Permissions beyond these stay. Where the process does not know its umask, or a file system knows no permissions,
    nothing changes.
    """
    usual = 0o666 & ~_umask()
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(file.stat().st_mode)
        if file.is_file() and mode | usual != mode:
            file.chmod(mode | usual)


def _umask() -> int:
    """The process's umask, read where that is possible: to ask ``os.umask`` is to change it for all threads."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o777


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Context manager: like ``replacing``, makes the folder too.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial


def write_whole(path: Path, content: str | bytes | memoryview, *, lasting: bool = False) -> None:
    """Writes text (as UTF-8) or bytes; readers never see half a file, and after a kill the earlier file stays.

    Args:
        path: the file.
        content: all of it.
        lasting: waits for the disk, so that the same holds after a power cut.

    Raises:
        OSError: see ``writing_whole``.
    """
    with writing_whole(path) as partial:
        if isinstance(content, str):
            partial.write_text(content, encoding="utf-8")
        else:
            partial.write_bytes(content)
        if lasting:
            flush(partial)


def write_all_whole(texts: Mapping[Path, str]) -> None:
    """Writes several files that belong together, and renames them only when the last one is written.

    Raises:
        OSError: one cannot be written; names it. Those that were there before stay.
    """
    partials = {path: partial_path(path) for path in texts}
    try:
        for path, partial in partials.items():
            with naming(path):
                if path.is_dir():
                    raise OSError("there is a folder of that name")
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(texts[path], encoding="utf-8")
        for path, partial in partials.items():
            with naming(path):
                partial.replace(path)
    finally:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Appends whole lines (as UTF-8) to a file that only grows, and makes it where there is none.

    Half a line that a killed writer left at the end becomes a line of its own: it takes no other one with it.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - 1, 0))
            begun = stream.read(1) not in (b"", b"\n")
            # In one piece, so that as little as possible is written in part.
            stream.write((b"\n" if begun else b"") + text.encode("utf-8", "surrogateescape"))


def json_lines(path: Path) -> list[dict[str, object]]:
    """The JSON objects of a file with one on each line; what a killed writer left of one is passed over.

    A file that is not there has none.
    """
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Waits until a file or folder has reached the disk: a rename must not outlive what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(file: Path, *, remedy: str) -> object:
    """The plain data in a JSON file that gesso wrote.

    Args:
        file: the file.
        remedy: what to do when it is damaged ("delete it: ...").

    Raises:
        ValueError: it is damaged; one line with the file and the remedy.
        OSError: it cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        what = "empty" if not file.stat().st_size else f"damaged ({error})"
        raise ValueError(f"{file}: {what}; {remedy}") from error
