"""Words and figures for people."""

from __future__ import annotations

import codecs

# Those of UTF-32 first: its little-endian one begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: Words of strangers that are longer are cut.
LONGEST_WORDS = 80


def one_line(message: object) -> str:
    """A message, or an exception's, without line breaks or repeated spaces; an empty exception's is its kind."""
    text = " ".join(str(message).split())
    return text or (type(message).__name__ if isinstance(message, BaseException) else "")


def counted(number: int, noun: str) -> str:
    """A number of things; the noun comes with an s where there is not one of them.

    >>> counted(1, "picture"), counted(12_000, "real picture")
    ('1 picture', '12,000 real pictures')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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


def printable(name: str) -> str:
    """A file name as text that any UTF-8 file can hold: bytes that are no UTF-8 come as ``\\xNN``.

    >>> printable("caf\\udce9")
    'caf\\\\xe9'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decode_text(data: bytes) -> str | None:
    """The text of a stranger's file: UTF-8, or UTF-16 or 32 behind their marks; without its mark. None: none of these.

    >>> decode_text(b"\\xef\\xbb\\xbfcat"), decode_text("cat".encode("utf-16")), decode_text(b"caf\\xe9")
    ('cat', 'cat', None)
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def harmless(words: object) -> str:
    """Words in one line without control characters, which a terminal would obey, and not too long.

    >>> harmless("a\\x1b[31m\\nb")
    'a?[31m?b'
    """
    text = str(words)[: LONGEST_WORDS + 1]
    text = text if len(text) <= LONGEST_WORDS else f"{text[: LONGEST_WORDS - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)
