"""Pictures to be rated."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFilter, ImageOps

from gesso.common.pixels import to_uint8
from launch.rating.files import Key, read_key
from tests.launch.rating.gallery import MAKE, METHODS, STEMS, gesso
from tests.pictures import photographs


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs, and what two methods made of them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", *METHODS):
        (tmp_path / folder).mkdir()
    for stem, pixels in zip(STEMS, to_uint8(photographs(96)), strict=True):
        photo = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        photo.save(f"photos/{stem}.jpg", quality=95)
        photo.filter(ImageFilter.EMBOSS).save(f"{METHODS[0]}/{stem}.png")
        ImageOps.posterize(photo, 2).save(f"{METHODS[1]}/{stem}.png")
    ImageOps.solarize(photo).save("painting.png")
    return tmp_path


@pytest.fixture
def key(gallery: Path) -> Key:
    assert gesso(*MAKE) == 0
    return read_key(Path("rate.key.json"))
