"""Cuts a smaller JPEG out of one: without the rows below a box, or by restart markers without all the rest."""

from __future__ import annotations

from datamodules.decoding.jpeg import EOI, HUFFMAN_TABLES, RESTARTS, Box, JpegFrame, Piece


def cut(data: bytes, frame: JpegFrame, box: Box, margin: int) -> Piece:
    """The part of a JPEG to decode for a box of it with a margin, in pixels."""
    restarts = data.find(RESTARTS, frame.at, frame.at + HUFFMAN_TABLES)
    if restarts >= 0:
        from datamodules.decoding.restart import between_markers

        piece = between_markers(data, frame, box, margin, restarts)
        if piece is not None:
            return piece
    return _without_rows_below(data, frame, box.top + box.height + margin)


def _without_rows_below(data: bytes, frame: JpegFrame, bottom: int) -> Piece:
    """Cuts off the rows below by a smaller height in the header; decoders do not read the data after that."""
    height = min(frame.height, bottom)
    if height == frame.height or not frame.baseline or not data.endswith(EOI):
        return Piece(data, Box(0, 0, frame.height, frame.width), True)
    shorter = b"".join((data[: frame.at], height.to_bytes(2), memoryview(data)[frame.at + 2 :]))
    return Piece(shorter, Box(0, 0, height, frame.width), False)
