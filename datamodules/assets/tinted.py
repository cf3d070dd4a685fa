"""Fashion-MNIST in known colours: two domains whose pictures are a garment (content) and a colour (style).

So it is known what a garment of one domain looks like in a colour of the other. The garments of the two domains are
different ones; which colour each has is a function of its number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gesso.common.randomness import mix_key

#: Colours, RGB, of each data set. Each has a channel of 255: that of a picture is the garment itself.
PALETTES = {
    "tinted-fashion-warm": ((255, 40, 40), (255, 140, 0), (255, 240, 60), (255, 120, 190), (255, 225, 190)),
    "tinted-fashion-cold": ((60, 90, 255), (40, 220, 255), (40, 255, 80), (150, 60, 255), (190, 225, 255)),
}
#: The data set that the garments are of.
GARMENTS = "fashion_mnist"
#: Of the colours' random numbers.
_KEY = 0x71


def is_of(name: str, number: int) -> bool:
    """Whether the garment of this number is of the data set ``name``: the warm one has the even numbers."""
    return number % len(PALETTES) == list(PALETTES).index(name)


def color_of(name: str, number: int) -> int:
    """Number in the palette of the colour that a garment has."""
    return mix_key(_KEY, number) % len(PALETTES[name])


def tinted(grey: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A grey picture [..., H, W] in a colour, on black: uint8 [..., H, W, 3]."""
    return np.rint(grey[..., None] * (np.array(color) / 255)).astype(np.uint8)


def apart(pictures: NDArray[np.uint8], name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The inverse of ``tinted``: grey pictures [N, H, W], exactly, and the number of each one's colour, int64 [N].

    Args:
        pictures: uint8 [N, H, W, 3], of the data set ``name``; also nearly so.
    """
    grey = pictures.max(-1)
    # The colour that is nearest on the mean over the pixels.
    means = pictures.reshape(len(pictures), -1, 3).mean(1)
    palette = np.array(PALETTES[name], np.float64)
    shades = means / np.maximum(means.max(1, keepdims=True), 1e-9) * 255
    return grey, np.square(shades[:, None] - palette).sum(2).argmin(1)
