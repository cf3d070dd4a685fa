"""Counter-based random numbers: pure functions of (seed, images seen, update, draw, global row).

A number's position is its counter, so each rank computes only its own rows.

A row of n elements has ``2 half`` places, where half is n / 2 rounded up to an even number. 64-bit word w of row g is
number ``g * half + w`` of the splitmix64 sequence that starts at the draw's key; its lower 32 bits are the bits of
place 2w, its upper ones those of place 2w + 1. Uniforms are the upper 24 bits of their places. Normals come in pairs by
Box-Muller: places p and p + half give elements p and p + half, the first place the radius and the second the angle.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gesso.common.randomness import FIRST, GAMMA, SECOND

#: Number of words computed at once: few fit a CPU's cache, many need fewer kernel launches on a GPU.
CPU_WORDS, GPU_WORDS = 1 << 18, 1 << 24


def seed_everything(seed: int, device: torch.device | None = None) -> None:
    """Seeds the global generators of Python, numpy and torch, on the CPU and on ``device``."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - what other people's code draws from
    if device is None or device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    # ``torch.manual_seed`` seeds the generators of all devices, and takes a millisecond where there is no GPU.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


@dataclass(frozen=True)
class Rows:
    """``count`` rows of a global batch: every ``step``-th from row ``first``."""

    count: int
    first: int = 0
    step: int = 1


def uniforms(keys: Sequence[int], rows: Rows, elements: int, device: torch.device) -> Tensor:
    """Numbers [keys * rows, elements], float32, multiples of 2^-24 in [0, 1), to the bit the same on every device.

    Args:
        keys: of one draw each, 0 <= key < 2^64.
    """
    noise = _places(len(keys) * rows.count, elements, device)
    for bits, _, into in _chunks(keys, rows, noise):
        into.copy_(bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF)).mul_(2.0**-24)
    return _without_spare(noise, elements)


def normals(keys: Sequence[int], rows: Rows, elements: int, device: torch.device) -> Tensor:
    """Standard normal numbers [keys * rows, elements], float32, within 6.7 of 0.

    Their bits are the same everywhere; a device's rounding of logarithm, sine and cosine makes the last digits its own.

    Args:
        keys: of one draw each, 0 <= key < 2^64.
    """
    noise = _places(len(keys) * rows.count, elements, device)
    for bits, scratch, into in _chunks(keys, rows, noise):
        radius, angle = scratch
        # In (0, 1], never 0: half a unit is added.
        radius.copy_(bits[0].bitwise_and_(0x7FFFFFFF)).add_(0.5).mul_(2.0**-31)
        radius.log_().mul_(-2).sqrt_()
        angle.copy_(bits[1]).mul_(math.pi * 2.0**-31)
        torch.mul(radius, torch.cos(angle, out=bits[0].view(torch.float32)), out=into[0])
        torch.mul(radius, angle.sin_(), out=into[1])
    return _without_spare(noise, elements)


def _places(count: int, elements: int, device: torch.device) -> Tensor:
    """Memory for rows of ``elements`` numbers, as [count, 2, half] with an even half."""
    return torch.empty(count, 2, (elements + 3) // 4 * 2, dtype=torch.float32, device=device)


def _without_spare(noise: Tensor, elements: int) -> Tensor:
    return noise.flatten(1)[:, :elements].contiguous()


def _chunks(keys: Sequence[int], rows: Rows, noise: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The random bits of ``noise`` [rows, 2, half], piece by piece.

    Yields:
        The bits [2, r, c], int32; memory of the same shape to work in, float32; and the view of ``noise`` [2, r, c]
        that they belong to. Bits and memory may be written to: the next piece is made in the same place.
    """
    count, _, half = noise.shape
    if not noise.numel():
        return
    limit = CPU_WORDS if noise.device.type == "cpu" else GPU_WORDS
    columns = min(half // 2, limit // 2)
    height = min(count, max(1, limit // (2 * columns)))
    memory = torch.empty(2, 2 * height * columns, dtype=torch.int64, device=noise.device)
    first_words = torch.arange(rows.count, device=noise.device).mul_(signed(rows.step * half * GAMMA))
    starts_of_keys = [signed(key + (rows.first * half + 1) * GAMMA) for key in keys]
    if len(keys) == 1:
        first_words.add_(starts_of_keys[0])
    else:
        # Without waiting for the device.
        several = torch.tensor(starts_of_keys).to(noise.device, non_blocking=True)
        first_words = (several[:, None] + first_words).flatten()
    offsets = torch.arange(half, device=noise.device).mul_(signed(GAMMA)).view(2, 1, half // 2)
    for top in range(0, count, height):
        starts = first_words[top : top + height, None]
        for left in range(0, half // 2, columns):
            steps = offsets[:, :, left : left + columns]
            shape = (2, len(starts), steps.shape[2])
            words, spare = (part[: math.prod(shape)].view(shape) for part in memory)
            _finalize(torch.add(starts, steps, out=words), spare)
            into = noise[top : top + height, :, 2 * left : 2 * (left + columns)].transpose(0, 1)
            yield words.view(torch.int32), spare.view(torch.float32), into


def _finalize(words: Tensor, spare: Tensor) -> None:
    """Splitmix64's finalizer, in place. int64 multiplies modulo 2^64; its shift keeps the sign, which is masked out."""
    for shift, factor in ((30, FIRST), (27, SECOND), (31, None)):
        torch.bitwise_right_shift(words, shift, out=spare)
        words.bitwise_xor_(spare.bitwise_and_((1 << (64 - shift)) - 1))
        if factor is not None:
            words.mul_(signed(factor))


def signed(number: int) -> int:
    """The int64 that has the lowest 64 bits of ``number``."""
    return ((number + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)
