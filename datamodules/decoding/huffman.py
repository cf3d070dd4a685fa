"""A JPEG's Huffman codes, rewritten with restart markers between them (ITU-T T.81, annexes C and F).

Codes stay what they are, but for those of each interval's first DC differences, which count from 0; what changes is
where their bits lie. Compiled by numba: in Python, a photograph would take seconds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from datamodules.decoding.compiled import compiled


class HuffmanCode(NamedTuple):
    """A Huffman code.

    ``symbols``: uint16 [65536], for each 16 bits the length << 8 | symbol of the code that they begin with, 0: none;
    ``words``: int64 [256], of each symbol the length << 16 | code, 0: none.
    """

    symbols: np.ndarray
    words: np.ndarray


@lru_cache(64)
def read_tables(content: bytes) -> dict[int, HuffmanCode] | None:
    """Huffman tables by class << 4 | number; None where a table is broken (T.81, B.2.4.2 and C.2)."""
    tables = {}
    while len(content) > 17:
        name, counts = content[0], content[1:17]
        values = content[17 : 17 + sum(counts)]
        lengths = np.repeat(np.arange(1, 17), list(counts))
        shares = 1 << (16 - lengths)  # of the 16-bit numbers, those that begin with each code
        if len(values) != len(lengths) or shares.sum() > 1 << 16:
            return None
        symbols, words = np.zeros(1 << 16, np.uint16), np.zeros(256, np.int64)
        symbols[: shares.sum()] = np.repeat(lengths << 8 | np.frombuffer(values, np.uint8), shares)
        words[list(values)] = lengths << 16 | (shares.cumsum() - shares) >> (16 - lengths)
        tables[name] = HuffmanCode(symbols, words)
        content = content[17 + len(values) :]
    return tables


# The bits that were read and not used yet, or not written yet: (place in the bytes, bits as a number, how many).
# Behind the codes' end, at any marker, zeros are read; ``left`` tells.


@compiled
def _refill(codes, at, bits, left):  # type: ignore[no-untyped-def]
    """Fills the bit buffer to more than 40 bits, unless a marker comes before."""
    while left <= 40 and at + 1 < len(codes):
        byte = np.int64(codes[at])
        if byte == 0xFF:
            if codes[at + 1] != 0:
                break
            at += 1
        bits, left, at = (bits & 0xFFFFFFFFFF) << 8 | byte, left + 8, at + 1
    return at, bits, left


@compiled
def _top(bits, left, count):  # type: ignore[no-untyped-def]
    """The next bits, as many as asked for; zeros after the last."""
    shifted = bits >> (left - count) if left >= count else bits << (count - left)
    return shifted & ((1 << count) - 1)


@compiled
def _put(codes, at, bits, left, value, count):  # type: ignore[no-untyped-def]
    """Writes bits; a byte of ones is followed by a zero."""
    bits, left = (bits & 0xFF) << count | value, left + count
    while left >= 8:
        left -= 8
        byte = (bits >> left) & 0xFF
        codes[at] = byte
        at += 1
        if byte == 0xFF:
            codes[at] = 0
            at += 1
    return at, bits, left


@compiled
def _end(codes, at, bits, left, marker):  # type: ignore[no-untyped-def]
    """Fills the last byte with ones and writes a marker behind it; returns the place behind that."""
    if left:
        at, bits, left = _put(codes, at, bits, left, (1 << (8 - left)) - 1, 8 - left)
    codes[at], codes[at + 1] = 0xFF, marker
    return at + 2


@compiled
def recode(old, new, sizes, components, dc, dc_words, ac, units, was, interval):  # type: ignore[no-untyped-def]
    """Rewrites a scan's codes with a restart marker after each ``interval`` minimum coded units.

    Args:
        old: uint8, the codes and what follows.
        new: uint8, overwritten; long enough.
        sizes: int64, overwritten by the bytes of each interval with the marker behind it.
        components: int64, each block's of a unit: 0 to 2.
        dc: uint16 [components, 65536], ``HuffmanCode.symbols`` of each component's DC differences.
        dc_words: int64 [components, 256], their ``HuffmanCode.words``.
        ac: uint16 [components, 65536], the symbols of all else.
        units: in the image.
        was: units between the old markers, 0: there are none.
        interval: units between the new ones.

    Returns:
        bytes written; -1 where the codes are broken, or have none for a DC difference that is needed.
    """
    at, bits, left = 0, 0, 0
    to, out, held = 0, 0, 0
    count, begun = 0, 0
    value, sent = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for unit in range(units):
        if was and unit and unit % was == 0:
            if left >= 8 or at + 1 >= len(old) or old[at + 1] != 0xD0 + (unit // was - 1) % 8:
                return -1
            at, bits, left = at + 2, 0, 0
            value[:] = 0
        if unit and unit % interval == 0:
            to, out, held = _end(new, to, out, held, 0xD0 + count % 8), 0, 0
            sizes[count], count, begun = to - begun, count + 1, to
            sent[:] = 0
        for c in components:
            at, bits, left = _refill(old, at, bits, left)
            found = dc[c, _top(bits, left, 16)]
            size = found & 0xFF
            left -= found >> 8
            if found == 0 or size > 11 or left < size:
                return -1
            difference = _top(bits, left, size)
            left -= size
            if size and difference < 1 << (size - 1):
                difference -= (1 << size) - 1
            value[c] += difference
            difference, sent[c] = value[c] - sent[c], value[c]
            size = 0
            while abs(difference) >> size:
                size += 1
            word = dc_words[c, size]
            if word == 0:
                return -1
            if difference < 0:
                difference += (1 << size) - 1
            to, out, held = _put(new, to, out, held, (word & 0xFFFF) << size | difference, (word >> 16) + size)
            k = 1
            while k < 64:
                at, bits, left = _refill(old, at, bits, left)
                found = ac[c, _top(bits, left, 16)]
                run, size = found >> 4 & 15, found & 15
                length = (found >> 8) + size
                if found == 0 or left < length:
                    return -1
                to, out, held = _put(new, to, out, held, _top(bits, left, length), length)
                left -= length
                if size == 0 and run < 15:
                    break
                k += run + 1
            if k > 64:
                return -1
    if left >= 8 or at + 1 >= len(old) or old[at] != 0xFF or old[at + 1] != 0xD9:
        return -1
    to = _end(new, to, out, held, 0xD9)
    sizes[count] = to - begun
    return to
