"""Which file names are taken for pictures: the one list for folders, tars, zips and stylization."""

from __future__ import annotations

import os

#: Endings of file names that are taken for pictures, in the order in which a sample with several is served; what is
#: inside decides in the end.
PICTURE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".jpe",
    ".jfif",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".avif",
)


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Whether a file name is a picture's, in capitals or not. Hidden ones are none: macOS leaves ``._NAME`` by NAME.

    >>> is_picture("a/b.JPG"), is_picture("a/._b.jpg"), is_picture("b.heic")
    (True, False, False)
    """
    base = os.path.basename(os.fspath(name))
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in PICTURE_SUFFIXES
