"""One list of what is a picture by its name."""

from __future__ import annotations

from gesso.common.pictures import PICTURE_SUFFIXES, is_picture


def test_all_cases_and_no_hidden_file() -> None:
    for suffix in PICTURE_SUFFIXES:
        assert is_picture(f"folder.d/a{suffix}")
        assert is_picture(f"a{suffix.upper()}")
        assert not is_picture(f"folder/._a{suffix}")
    assert not any(map(is_picture, (".jpg", "jpg", "a.heic", "a.jpg.txt", "")))
