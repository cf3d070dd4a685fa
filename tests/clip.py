"""A short film whose motion is known, for tests of flow, flicker and smoothing."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from lightning_modules.pictures.flow import Motion
from tests.pictures import photographs

SIDE = 160


class Clip:
    """A camera that pans and zooms over a photograph, a cup that moves through its picture, and the sensor's noise.

    Attributes:
        frames: [1, 3, SIDE, SIDE] in [-1, 1] each.
        covers: [SIDE, SIDE] each, True where the cup is.
        flows: [1, 2, SIDE, SIDE] each, the background's motion back to the frame before; the first has none.
    """

    def __init__(self, count: int, *, pan: float = 1.3, zoom: float = 0.002, noise: float = 0.012) -> None:
        rng = np.random.default_rng(0)
        ground, cup = (pixels(photographs(side)[number]) for side, number in ((400, 0), (120, 1)))
        y, x = np.indices((SIDE, SIDE), np.float32)
        self.frames: list[Tensor] = []
        self.covers: list[np.ndarray] = []
        self.flows: list[Tensor] = []
        for t in range(count):
            scale, left, top = 1 + zoom * t, 40 + pan * t, 60 + 0.6 * pan * t
            frame = look(ground, scale, left, top)
            column, row = 20 + 2.5 * t, SIDE * 0.55 + 20 * math.sin(t / 8)
            distance = np.hypot(x - column, y - row)
            cover = np.clip(24.5 - distance, 0, 1)[..., None]
            frame = frame * (1 - cover) + look(cup, 2, 60 - 2 * column, 60 - 2 * row) * cover
            self.frames.append(tensor((frame + rng.normal(0, noise, frame.shape)).clip(0, 1)))
            self.covers.append(distance < 25)
            before = 1 + zoom * (t - 1)
            steps = [(scale / before - 1) * place + step / before for place, step in ((x, pan), (y, 0.6 * pan))]
            self.flows.append(torch.from_numpy(np.stack(steps))[None].float())

    def background(self, t: int) -> Tensor:
        """Where the known motion holds, [1, 1, SIDE, SIDE]: off the cup and the borders, now and before."""
        cups = (self.covers[t] | self.covers[t - 1]).astype(np.uint8)
        clear = 1 - cv2.dilate(cups, np.ones((25, 25), np.uint8))
        clear[:4] = clear[-4:] = clear[:, :4] = clear[:, -4:] = 0
        return torch.from_numpy(clear)[None, None].float()


def look(image: np.ndarray, scale: float, left: float, top: float) -> np.ndarray:
    view = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, view, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REFLECT)


def pixels(picture: Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0).numpy() + 1) / 2


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] * 2 - 1


def sharpness(picture: Tensor, where: Tensor | None = None) -> float:
    """Mean magnitude of the gradient, over all pixels or those that are 1 in ``where``."""
    slope = torch.hypot(picture[..., 1:, 1:] - picture[..., 1:, :-1], picture[..., 1:, 1:] - picture[..., :-1, 1:])
    if where is None:
        return slope.mean().item()
    return ((slope.mean(1, keepdim=True) * where[..., 1:, 1:]).sum() / where[..., 1:, 1:].sum()).item()


def still(side: int = 16) -> Motion:
    return Motion(torch.zeros(1, 2, side, side), torch.ones(1, 1, side, side), torch.ones(1, 1, side, side))
