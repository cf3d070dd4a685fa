"""Pixel values in and out, counted by hand."""

from __future__ import annotations

import pytest
import torch

from gesso.common.pixels import check_values, to_float, to_uint8


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


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.int8])
def test_other_whole_numbers_have_no_range(kind: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"images of \w+: they are uint8 in \[0, 255\], or float in \[-1, 1\]"):
        to_uint8(torch.ones(1, 1, 2, 2).to(kind))


def test_values_of_another_range_are_named() -> None:
    image = torch.rand(3, 4, 4) * 2 - 1
    check_values(image * 1.2, "a picture")
    check_values((image * 100).abs().to(torch.uint8), "a picture")
    with pytest.raises(ValueError, match=r"a picture holds values from -?\d.* to \d.*: float images lie in \[-1, 1\]"):
        check_values((image + 1) * 127.5, "a picture")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a picture holds NaN or infinite values"):
            check_values(torch.where(image > 0.5, value, image), "a picture")
    with pytest.raises(ValueError, match=r"a picture of the shape \[3, 0, 4\] has no pixels"):
        check_values(image[:, :0], "a picture")
