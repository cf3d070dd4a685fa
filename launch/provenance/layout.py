"""Whether the bytes that no signature reaches are as gesso writes them.

A C2PA signature covers the picture, the claim and the assertions. It does not cover the padding in its own box (a
kilobyte of zeros), the names and lengths of the boxes around it, and the checksum of the PNG chunk that holds them all:
of the bytes of a signed file's credentials a third may be anything, and readers call it valid. So that one changed
byte is always found, these are compared with the one form that gesso writes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import TypeAlias

Bytes: TypeAlias = bytes | mmap
#: The kind of a box (the first bytes of its UUID) and its only name.
NAMES = {b"c2pa": b"c2pa", b"c2as": b"c2pa.assertions", b"c2cl": b"c2pa.claim.v2", b"c2cs": b"c2pa.signature"}
#: The UUID of the MP4 box that holds credentials.
MP4_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


class Odd(ValueError):
    """Bytes that gesso does not write there."""


def check_layout(data: Bytes, mime: str, *, brands: object = None) -> None:
    """Checks what surrounds a signature in a whole file that gesso has signed.

    Args:
        data: the file.
        mime: one of ``image/png``, ``image/jpeg``, ``image/webp`` and ``video/mp4``.
        brands: what an MP4's first box holds, in hexadecimal digits, as the signed credentials have it: the
            signature itself leaves that box out.

    Raises:
        Odd: something there has been changed; says what.
    """
    try:
        store = STORES[mime](data)
        _check_store(store)
        if mime == "video/mp4" and data[8 : _number(data, 0)].hex() != brands:
            raise Odd("the brands of the MP4 are others")
    except (IndexError, KeyError, OverflowError) as error:
        raise Odd("its boxes do not fit together") from error


def _number(data: Bytes, start: int, size: int = 4, order: str = "big") -> int:
    if not 0 <= start <= len(data) - size:
        raise Odd("it is cut short")
    return int.from_bytes(data[start : start + size], "little" if order == "little" else "big")


def _png(data: Bytes) -> bytes:
    found, at = [], 8
    while at < len(data):
        length, kind = _number(data, at), data[at + 4 : at + 8]
        if kind == b"caBX":
            if zlib.crc32(data[at + 4 : at + 8 + length]) != _number(data, at + 8 + length):
                raise Odd("the checksum of its PNG chunk is another")
            found.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return _only(found)


def _jpeg(data: Bytes) -> bytes:
    pieces: list[bytes] = []
    header, at = b"", 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        length = _number(data, at + 2, 2)
        segment = data[at + 4 : at + 2 + length]
        # Boxes larger than a segment go on in the next one, which repeats the box's length and kind.
        begins, goes_on = not pieces and segment[12:16] == b"jumb", bool(pieces) and segment[8:16] == header
        if data[at + 1] == 0xEB and (begins or goes_on):
            if segment[:4] != b"JP\x02\x11" or _number(segment, 4) != len(pieces) + 1:
                raise Odd("the number of a JPEG segment is another")
            pieces.append(segment[16 if pieces else 8 :])
            header = segment[8:16]
        at += 2 + length
    return _only([b"".join(pieces)] if pieces else [])


def _webp(data: Bytes) -> bytes:
    found, at = [], 12
    while at < len(data):
        length = _number(data, at + 4, order="little")
        if data[at : at + 4] == b"C2PA":
            found.append(data[at + 8 : at + 8 + length])
            if length % 2 and data[at + 8 + length] != 0:
                raise Odd("the byte after its WebP chunk is not 0")
        at += 8 + length + length % 2
    return _only(found)


def _mp4(data: Bytes) -> bytes:
    found, at = [], 0
    while at < len(data):
        length, kind = _number(data, at), data[at + 4 : at + 8]
        head = 8
        if length == 1:
            length, head = _number(data, at + 8, 8), 16
        if length < head:
            raise Odd("a box has no length")
        if kind == b"uuid" and data[at + head : at + head + 16] == MP4_BOX:
            content = data[at + head + 16 : at + length]
            purpose = b"\0\0\0\0manifest\0" + bytes(8)
            if not content.startswith(purpose):
                raise Odd("the head of its MP4 box is another")
            store = content[len(purpose) :]
            found.append(store[: _number(store, 0)])
            if store[_number(store, 0) :].strip(b"\0"):
                raise Odd("something follows it in its MP4 box")
        at += length
    return _only(found)


STORES: dict[str, Callable[[Bytes], bytes]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/webp": _webp,
    "video/mp4": _mp4,
}


def _only(found: list[bytes]) -> bytes:
    if len(found) != 1:
        raise Odd(f"it holds {len(found)} stores of credentials")
    return found[0]


def _check_store(store: bytes) -> None:
    (box,) = _boxes(store)
    manifests = _check_superbox(box[1])
    # The last manifest is the file's own; those before it are its parents', which the signature covers.
    for signature in _signatures(manifests[-1]):
        _check_padding(signature)


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of each box; they fill ``data`` exactly."""
    return list(_walk(data))


def _walk(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        length = _number(data, at)
        if length < 8 or at + length > len(data):
            raise Odd("the length of a box is another")
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def _check_superbox(content: bytes) -> list[bytes]:
    """Checks the names and lengths of a JUMBF superbox and those in it; gives the contents of the latter."""
    (kind, description), *others = _boxes(content)
    if kind != b"jumd":
        raise Odd("a box has no description")
    name = description[17:]
    # Without an identifier, a hash or salt after it (bits 2 to 4), the name ends the description.
    if not description[16] & 0b11100 and name.find(b"\0") != len(name) - 1:
        raise Odd("the name of a box is another")
    if name.partition(b"\0")[0] != NAMES.get(description[:4], name.partition(b"\0")[0]):
        raise Odd("the name of a box is another")
    inner = [content for kind, content in others if kind == b"jumb"]
    for each in inner:
        _check_superbox(each)
    return inner


def _signatures(manifest: bytes) -> list[bytes]:
    """The COSE signature of a manifest, in CBOR."""
    found = []
    for kind, content in _boxes(manifest):
        if kind == b"jumb":
            (_, description), *others = _boxes(content)
            if description[:4] == b"c2cs":
                found += [inner for kind, inner in others if kind == b"cbor"]
    return found


def _check_padding(signature: bytes) -> None:
    """COSE_Sign1: tag 18 of [what is signed, {"pad": zeros}, nothing, the signature] and no more."""
    if signature[:2] != b"\xd2\x84":
        raise Odd("the signature is of another form")
    _, at = _item(signature, 2, major=2)
    pairs, at = _head(signature, at, major=5)
    for _ in range(pairs):
        name, at = _item(signature, at, major=3)
        padding, at = _item(signature, at, major=2)
        if name not in (b"pad", b"pad2") or padding.strip(b"\0"):
            raise Odd("the padding of the signature is not empty")
    if signature[at] != 0xF6:
        raise Odd("the signature is of another form")
    _, at = _item(signature, at + 1, major=2)
    if at != len(signature):
        raise Odd("something follows the signature")


def _head(data: bytes, at: int, *, major: int) -> tuple[int, int]:
    """The number that a CBOR item begins with, and where it ends."""
    if data[at] >> 5 != major:
        raise Odd("the signature is of another form")
    short = data[at] & 31
    if short < 24:
        return short, at + 1
    size = {24: 1, 25: 2, 26: 4, 27: 8}[short]
    return _number(data, at + 1, size), at + 1 + size


def _item(data: bytes, at: int, *, major: int) -> tuple[bytes, int]:
    """The content of a CBOR string of bytes or text, and where it ends."""
    length, at = _head(data, at, major=major)
    if at + length > len(data):
        raise Odd("the signature is cut short")
    return data[at : at + length], at + length
