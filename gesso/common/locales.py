"""Names of files are UTF-8 whatever the locale, as they are on the machines that share them."""

from __future__ import annotations

import io
import os
import sys


def use_utf8() -> None:
    """Starts this process again in Python's UTF-8 mode where the locale has another encoding; else returns.

    In a locale such as ``en_US.ISO-8859-1`` Python takes the bytes of arguments and file names for Latin-1; paths that
    are written to files would then name other files on every other machine. The screen keeps its encoding, with ``?``
    for what it cannot show. The processes that this one starts inherit the mode.
    """
    screen = sys.stdout.encoding if isinstance(sys.stdout, io.TextIOWrapper) else "utf-8"
    if not sys.flags.utf8_mode and not _is_utf8(sys.getfilesystemencoding()) and sys.orig_argv:
        environment = {"PYTHONIOENCODING": screen, **os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is no UTF-8 comes out as the bytes that it is.
        sys.stdout.reconfigure(errors="surrogateescape" if _is_utf8(screen) else "replace")


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"
