"""Pixel values in and out, counted by hand."""

from __future__ import annotations

import torch

from gesso.common.pixels import to_float, to_uint8


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-7.0, -1.0, -0.9999, -0.004, 0.0, 0.004, 0.5, 0.9999, 1.0, 3.0, float("nan"), float("inf")])
    # By hand: (v + 1) * 127.5 to the nearest integer, halves to even (127.5 -> 128), bounded by 0 and 255.
    assert to_uint8(values).tolist() == [0, 0, 0, 127, 128, 128, 191, 255, 255, 255, 0, 255]


def test_every_byte_survives_the_way_through_floats() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8)
    floats = to_float(bytes_)
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats, torch.linspace(-1, 1, 256), rtol=0, atol=1e-6)
    assert torch.equal(to_uint8(floats), bytes_)


def test_conversion_leaves_its_input_alone() -> None:
    images = torch.full((1, 1, 2, 2), -2.0)
    to_uint8(images)
    assert torch.equal(images, torch.full((1, 1, 2, 2), -2.0))
