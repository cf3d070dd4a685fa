"""Fast decoding against PIL and against the careful decoder."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms

from datamodules.decoding import decode
from datamodules.decoding.decode import Part, decode_image, decode_part
from datamodules.decoding.images import BadImage, read_image
from datamodules.decoding.jpeg import Box, jpeg_frame


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth colours with detail and an edge, 203 x 150 pixels (no multiple of a JPEG block)."""
    y, x = np.mgrid[0:150, 0:203]
    waves = [127 + 100 * np.sin(x / 17 + y / 23), 127 + 90 * np.cos(x / 9), 255 * (x + y > 180) * 0.8 + 20]
    noise = np.random.default_rng(0).normal(0, 6, (150, 203, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def size_of(data: bytes) -> tuple[int, int]:
    frame = jpeg_frame(data)
    assert frame is not None
    return frame.height, frame.width


def decode_above(data: bytes, bottom: int, *, channels: int = 3, **options: Any) -> Part:
    """A JPEG's pixels above a row."""
    frame = jpeg_frame(data)
    assert frame is not None
    return decode_part(data, frame, channels, Box(0, 0, bottom, frame.width), **options)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F] = "a camera"
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"exif": exif(1)}, {"comment": b"x"}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_decoded_as_pil_does(photo: Image.Image, mode: str, channels: int, options: dict[str, Any]) -> None:
    data = encode(photo.convert(mode), "JPEG", quality=90, **options)
    ours = decode_image(data, channels)
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")).reshape(150, 203, -1)
    assert size_of(data) == (150, 203)
    assert ours.shape == (150, 203, channels)
    assert np.abs(ours.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("reduce", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_scaled_decoding_is_a_reduction_by_areas(photo: Image.Image, channels: int, reduce: int) -> None:
    data = encode(photo, "JPEG", quality=95, subsampling=0)
    ours = decode_above(data, 150, channels=channels, reduce=reduce).image.astype(float)
    full = decode_image(data, channels)[: 150 // reduce * reduce, : 203 // reduce * reduce]
    areas = full.reshape(150 // reduce, reduce, 203 // reduce, reduce, channels).mean((1, 3))
    assert ours.shape == (-(-150 // reduce), -(-203 // reduce), channels)
    error = np.abs(ours[: 150 // reduce, : 203 // reduce] - areas)
    # Every second, fourth or eighth pixel instead would be off by 6 and more on average: the noise alone.
    assert error.mean() < 1.5


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}, {"optimize": True}])
def test_rows_above_the_bottom_are_as_in_the_whole_image(
    photo: Image.Image, subsampling: int, options: dict[str, Any]
) -> None:
    data = encode(photo, "JPEG", quality=90, subsampling=subsampling, **options)
    for reduce in (1, 2, 4, 8):
        whole = decode_above(data, 150, reduce=reduce).image
        for bottom in (1, 7, 16, 33, 100, 149, 150):
            rows = -(-bottom // reduce) + 1  # one more, since a box is rounded
            part = decode_above(data, bottom, reduce=reduce).image
            assert part.shape[1:] == whole.shape[1:]
            assert np.array_equal(part[:rows], whole[:rows])
            if bottom < 100 and not options.get("progressive"):
                assert len(part) < len(whole)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_chroma_is_interpolated_as_in_the_whole_image(photo: Image.Image, subsampling: str, reduce: int) -> None:
    data = simplejpeg.encode_jpeg(np.asarray(photo), 90, colorsubsampling=subsampling)
    whole = decode_above(data, 150, reduce=reduce).image
    for bottom in range(1, 150, 3):
        rows = -(-bottom // reduce) + 1
        part = decode_above(data, bottom, reduce=reduce).image
        assert np.array_equal(part[:rows], whole[:rows])


def test_a_truncated_jpeg_is_found_even_below_the_bottom(photo: Image.Image) -> None:
    data = encode(photo, "JPEG", quality=90)
    with pytest.raises(BadImage, match="truncated"):
        decode_above(data[: len(data) * 3 // 4], 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_is_used_where_the_image_fits(photo: Image.Image, channels: int) -> None:
    files = [encode(image, "JPEG", quality=90) for image in (photo, photo.rotate(180), photo.crop((0, 0, 90, 150)))]
    memory = np.full(150 * 203 * channels, 7, np.uint8)
    for data in files:
        image = decode_above(data, 150, channels=channels, memory=memory).image
        assert np.shares_memory(image, memory)
        assert np.array_equal(image, decode_image(data, channels))
    part = decode_above(files[0], 150, channels=channels, memory=memory[1:])
    assert not np.shares_memory(part.image, memory)


def odd_files(photo: Image.Image) -> dict[str, tuple[bytes, int]]:
    """Files that need care, and the channels to ask for."""
    gray16 = Image.fromarray(np.linspace(0, 65535, 6400).reshape(80, 80).astype(np.uint16))
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 5000)).tobytes()
    transparent = {"transparency": (20, 20, 20)}
    return {
        **{f"turned {n}": (encode(photo, "JPEG", exif=exif(n)), 3) for n in range(2, 9)},
        "CMYK": (encode(photo.convert("CMYK"), "JPEG"), 3),
        "foreign profile": (encode(photo, "JPEG", icc_profile=profile), 3),
        "palette": (encode(photo.convert("P"), "PNG"), 3),
        "16 bits": (encode(gray16, "PNG"), 1),
        "alpha": (encode(alpha, "PNG"), 3),
        "LA": (encode(alpha.convert("LA"), "PNG"), 1),
        "one colour transparent": (encode(photo, "PNG", **transparent), 3),
        "one bit": (encode(photo.convert("1"), "PNG"), 1),
        "colour as grey": (encode(photo, "PNG"), 1),
        "turned PNG": (encode(photo, "PNG", exif=exif(6)), 3),
        "WebP": (encode(photo, "WEBP"), 3),
        "GIF": (encode(photo, "GIF"), 3),
    }


@pytest.mark.parametrize("name", odd_files(Image.new("RGB", (8, 8))))
def test_what_needs_care_gets_it(photo: Image.Image, name: str) -> None:
    data, channels = odd_files(photo)[name]
    assert jpeg_frame(data) is None
    assert np.array_equal(decode_image(data, channels), read_image(data, channels))


def test_srgb_profiles_are_no_obstacle(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert size_of(encode(photo, "JPEG", icc_profile=profile)) == (150, 203)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("L", 3)])
def test_plain_png_is_exact_and_takes_the_fast_way(
    photo: Image.Image, mode: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo.convert(mode)
    data = encode(image, "PNG")
    monkeypatch.setattr(decode, "read_image", None)
    expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(150, 203, channels)
    assert np.array_equal(decode_image(data, channels), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_broken_files_raise(photo: Image.Image, kind: str) -> None:
    data = encode(photo, kind)
    for length in (0, 1, 3, 10, 30, 200, len(data) // 2):
        with pytest.raises(BadImage):
            decode_image(data[:length], 3)
    with pytest.raises(BadImage):
        decode_image(b"certainly no image", 3)


def test_a_damaged_png_is_not_taken_for_whole(photo: Image.Image) -> None:
    data = bytearray(encode(photo, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BadImage):
        decode_image(bytes(data), 3)


def test_headers_from_hell_do_not_break_the_parser(photo: Image.Image) -> None:
    """Whatever byte of the header is changed, there is an answer or a BadImage, never another error."""
    data = encode(photo.resize((16, 16)), "JPEG", exif=exif(1))
    for at in range(2, len(data) - 2, 3):
        for value in (0, 1, 0x7F, 0xFF):
            damaged = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                image = decode_image(damaged, 3)
            except BadImage:
                continue
            assert image.dtype == np.uint8
            assert image.shape[2] == 3


def test_bombs_are_refused() -> None:
    bomb = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    bomb[16:24] = (60000).to_bytes(4) + (60000).to_bytes(4)
    with pytest.raises(BadImage):
        decode_image(bytes(bomb), 3)
    jpeg = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xf0\xff\xf0"
    with pytest.raises(BadImage, match="too large"):
        decode_image(bytes(jpeg), 3)
