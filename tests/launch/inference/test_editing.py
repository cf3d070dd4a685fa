"""Pictures and masks to edit by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.inference.editing import read_mask, read_to_edit
from tests.launch.serving.models import tiny


def saved(file: Path, width: int, height: int) -> Path:
    """A picture whose left half is black."""
    pixels = np.full((height, width), 255, np.uint8)
    pixels[:, : width // 2] = 0
    Image.fromarray(pixels).save(file)
    return file


@pytest.mark.parametrize("size", [(64, 48), (128, 96), (33, 25), (48, 48), (20, 20)])
def test_a_mask_is_of_the_picture_or_of_its_square(tmp_path: Path, size: tuple[int, int]) -> None:
    source = saved(tmp_path / "picture.png", 64, 48)
    picture = read_to_edit(tiny("DCGAN"), source)
    known = read_mask(saved(tmp_path / "mask.png", *size), picture, source)
    assert known.shape == (1, 1, 32, 32)
    assert known[..., :15].all()
    assert not known[..., 17:].any()


@pytest.mark.parametrize("size", [(48, 64), (64, 32)])
def test_a_mask_of_other_sides_fits_nowhere(tmp_path: Path, size: tuple[int, int]) -> None:
    source = saved(tmp_path / "picture.png", 64, 48)
    picture = read_to_edit(tiny("DCGAN"), source)
    with pytest.raises(ValueError, match=f"mask.png: {size[0]} x {size[1]} pixels, .*picture.png has 64 x 48"):
        read_mask(saved(tmp_path / "mask.png", *size), picture, source)
