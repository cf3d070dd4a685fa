"""Words and figures for people."""

from __future__ import annotations


def one_line(message: object) -> str:
    """A message, or an exception's, without line breaks or repeated spaces; an empty exception's is its kind."""
    text = " ".join(str(message).split())
    return text or (type(message).__name__ if isinstance(message, BaseException) else "")


def binary_size(count: float | None) -> str:
    """Bytes in binary units, three digits or so: ``14.3 MiB``; "-" for None.

    >>> binary_size(512), binary_size(15_000_000), binary_size(3 * 2**30)
    ('512 B', '14.3 MiB', '3.00 GiB')
    """
    if count is None:
        return "-"
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            break
    return f"{count:.2f} {unit}" if count < 10 else f"{count:.1f} {unit}"
