"""Expands paths, globs, braces and URLs to tars, and opens them."""

from __future__ import annotations

import glob
import os
from typing import IO

from gesso.common.remote import local_path, open_remote

_MAGIC = frozenset("*?[{")


def has_magic(text: str) -> bool:
    """Whether ``text`` has characters of globs or braces."""
    return not _MAGIC.isdisjoint(text)


def expand_urls(text: str) -> list[str]:
    """URLs and paths after brace and glob expansion; a glob's paths are sorted.

    An existing file of exactly this name is not expanded.

    Raises:
        FileNotFoundError: a file is missing; names it.
        ValueError: one is no regular file, or braces do not match.
    """
    from braceexpand import braceexpand

    if text.startswith("pipe:"):
        return [text]
    whole = local_path(text)
    if whole is not None and os.path.lexists(whole):
        return [_plain(str(whole))]
    try:
        parts = list(braceexpand(text))
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from error
    found: list[str] = []
    for part in parts:
        path = local_path(part)
        if path is None:
            found.append(part)
            continue
        matches = [str(path)] if os.path.lexists(path) else sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise FileNotFoundError(f"{part}: no such tar" + (f"; {text} names it" if part != text else ""))
        found += map(_plain, matches)
    return found


def open_url(url: str) -> IO[bytes]:
    """Opens a tar for one reading from its start; raises an OSError that names it, see ``open_remote``."""
    path = local_path(url)
    return open_remote(url) if path is None else path.open("rb")


def _plain(path: str) -> str:
    if not os.path.isfile(path):
        if os.path.exists(path):
            raise ValueError(f"{path}: is no plain file")
        raise FileNotFoundError(f"{path}: no such tar (a link to nothing)")
    return path
