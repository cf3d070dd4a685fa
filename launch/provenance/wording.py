"""Words out of strangers' files, made safe to print."""

from __future__ import annotations

#: Longer words are cut.
LONGEST = 80


def printable(words: object) -> str:
    """Words in one line without control characters, which a terminal would obey, and not too long.

    >>> printable("a\\x1b[31m\\nb")
    'a?[31m?b'
    """
    text = str(words)[: LONGEST + 1]
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)
