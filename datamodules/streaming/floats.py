"""What the stream gives, as networks take it: float32 pictures in [-1, 1], or latents of standard deviation 1."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from datamodules.latents import LatentSpec, normalization
from datamodules.streaming.buffers import Buffers
from gesso.common.pixels import to_float

# 1 / 127.5, rounded down: rounded to the nearest float32, 255 would come out a hair above 1.
_SCALE = float(np.nextafter(np.float32(1 / 127.5), np.float32(0)))
_buffers = Buffers()


def to_float_images(images: Tensor) -> Tensor:
    """uint8 [n, H, W, C] in [0, 255] to float32 [n, C, H, W] in [-1, 1] on the same device, channels-last in memory."""
    if images.device.type != "cpu":
        return to_float(images).permute(0, 3, 1, 2)
    # One pass where torch makes three: 34 against 58 µs for a 224 px image.
    floats = _buffers.empty(images.shape, torch.float32)
    flat = images.flatten(1).numpy()
    cv2.addWeighted(flat, _SCALE, flat, 0, -1, dst=floats.flatten(1).numpy(), dtype=cv2.CV_32F)
    return floats.permute(0, 3, 1, 2)


def to_float_latents(latents: Tensor, spec: LatentSpec) -> Tensor:
    """float16 [n, 2C, h, w] to float32 on the same device, in units in which latents have mean 0 and deviation 1."""
    factor, summand = (torch.from_numpy(values).to(latents.device) for values in normalization(spec))
    return torch.addcmul(summand, latents.float(), factor)
