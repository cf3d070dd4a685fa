"""Odd images against values computed by hand, the way a viewer would show them."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from datamodules.decoding.images import PIXEL_LIMIT, BadImage, is_plain_jpeg, read_image, resize_image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth colour ramp: JPEG keeps it nearly exactly."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 255 - x * 255 // (width - 1)], -1).astype(
        np.uint8
    )


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, so that the reader is not tested with its own library's writer."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = b"".join(chunk(*one) for one in chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


# What EXIF calls the place of row 0 and column 0, as numpy operations that undo it.
STORED_AS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_exactly(kind: str, orientation: int) -> None:
    upright = colours()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    data = encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(read_image(data), upright)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_rotated_jpeg_agrees_with_opencv(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(colours()), "JPEG", quality=95, exif=exif)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert reference is not None
    reference = reference[:, :, ::-1]
    assert np.abs(read_image(data).astype(int) - reference).max() <= 4


def test_broken_exif_leaves_the_image_as_it_is() -> None:
    data = encode(Image.fromarray(colours()), "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF header")
    assert read_image(data).shape == (24, 40, 3)


def test_cmyk_jpeg_as_adobe_writes_it() -> None:
    """Adobe stores inverted ink: white paper is 255 in the file. PIL's writer does likewise; its reader undoes it."""
    ink = np.zeros((32, 32, 4), np.uint8)
    ink[:, 16:] = (0, 255, 255, 0)  # no cyan, full magenta and yellow: red
    data = encode(Image.frombytes("CMYK", (32, 32), ink.tobytes()), "JPEG")
    assert b"Adobe" in data
    image = read_image(data)
    assert image[16, 4].min() >= 250  # paper
    assert image[16, 28, 0] >= 250
    assert image[16, 28, 1:].max() <= 5


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 128, 129, 256, 32768, 65407, 65535]], ">u2")
    image = read_image(png(7, 1, 16, 0, b"\0" + levels.tobytes()))
    np.testing.assert_array_equal(image[0, :, 0], np.round(levels[0] / 257))
    assert image.shape == (1, 7, 1)


def test_sixteen_bit_pgm_and_tiff() -> None:
    levels = np.arange(0, 65536, 4369, dtype=np.uint16).reshape(4, 4)
    expected = np.round(levels / 257).astype(np.uint8)
    pgm = b"P5 4 4 65535\n" + levels.astype(">u2").tobytes()
    np.testing.assert_array_equal(read_image(pgm)[:, :, 0], expected)
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(levels), "TIFF"))[:, :, 0], expected)


def test_palette_with_a_transparent_entry_lies_on_white() -> None:
    palette = (b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
    image = read_image(png(2, 1, 8, 3, b"\0\0\1", palette, (b"tRNS", bytes([255, 0]))))
    np.testing.assert_array_equal(image, [[[255, 0, 0], [255, 255, 255]]])
    opaque = read_image(png(2, 1, 8, 3, b"\0\0\1", palette))
    np.testing.assert_array_equal(opaque, [[[255, 0, 0], [0, 0, 255]]])


def test_alpha_is_composited_on_white() -> None:
    pixels = bytes([0, 0, 0, 128, 200, 100, 50, 255, 9, 9, 9, 0])
    image = read_image(png(3, 1, 8, 6, b"\0" + pixels))
    np.testing.assert_allclose(image[0], [[127, 127, 127], [200, 100, 50], [255, 255, 255]], atol=1)


def test_grey_with_alpha_stays_grey() -> None:
    image = read_image(png(2, 1, 8, 4, b"\0" + bytes([10, 255, 10, 0])))
    np.testing.assert_array_equal(image, [[[10], [255]]])


def test_grey_with_a_transparent_level() -> None:
    image = read_image(png(2, 1, 8, 0, b"\0" + bytes([10, 20]), (b"tRNS", b"\0\x14")))
    np.testing.assert_array_equal(image, [[[10], [255]]])


def test_one_bit() -> None:
    np.testing.assert_array_equal(read_image(png(8, 1, 1, 0, b"\0\xa5"))[0, :, 0], [255, 0, 255, 0, 0, 255, 0, 255])


def test_channels_convert_both_ways() -> None:
    data = encode(Image.fromarray(colours()), "PNG")
    luma = colours() @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(read_image(data, 1)[:, :, 0], luma, atol=1)
    grey = png(2, 1, 8, 0, b"\0" + bytes([10, 20]))
    np.testing.assert_array_equal(read_image(grey, 3), [[[10] * 3, [20] * 3]])


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data)[0, 0].tolist() == [255, 0, 0]


def linear_profile() -> bytes:
    """sRGB's colours under a profile whose transfer curves are replaced by gamma 1."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack(">I", profile[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", profile[132 + 12 * number : 144 + 12 * number])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            profile[offset : offset + 16] = b"para\0\0\0\0\0\0\0\0" + struct.pack(">I", 1 << 16)
        if tag == b"desc":
            text = profile.find("sRGB".encode("utf-16-be"), offset)
            profile[text : text + 8] = "gmm1".encode("utf-16-be")
    return bytes(profile)


def test_colour_profile_is_applied() -> None:
    profile = linear_profile()
    linear = np.linspace(0, 255, 16).round().astype(np.uint8)
    data = encode(Image.fromarray(np.repeat(linear[None, :, None], 3, 2)), "PNG", icc_profile=profile)
    x = linear / 255
    srgb = 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(read_image(data)[0, :, 1], srgb, atol=2)


def test_broken_or_ill_fitting_profiles_are_ignored() -> None:
    upright = colours()
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(upright), "PNG", icc_profile=b"junk")), upright)
    grey = encode(Image.fromarray(upright[:, :, 0]), "PNG", icc_profile=linear_profile())
    np.testing.assert_array_equal(read_image(grey)[:, :, 0], upright[:, :, 0])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_called_truncated(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(BadImage) as caught:
        read_image(data[: len(data) * 2 // 3])
    assert caught.value.reason == ("truncated" if kind != "TIFF" else caught.value.reason)


@pytest.mark.parametrize(
    "data", [b"", b"plain text", b"\xff\xd8\xff" + bytes(100), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_undecodable(data: bytes) -> None:
    with pytest.raises(BadImage) as caught:
        read_image(data)
    assert caught.value.reason == "undecodable"
    assert "\n" not in str(caught.value)


def test_random_damage_never_escapes_as_another_error() -> None:
    """A thousand damaged files either decode or are bad images; nothing else is raised, nothing is warned about."""
    random = np.random.default_rng(1)
    originals = [encode(Image.fromarray(colours()), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(1000):
            data = bytearray(originals[number % len(originals)])
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(256)
            try:
                assert read_image(bytes(data)).dtype == np.uint8
            except BadImage as bad:
                assert bad.reason in {"undecodable", "truncated", "too large"}  # noqa: PT017


def test_size_limits() -> None:
    data = encode(Image.fromarray(colours()), "PNG")
    with pytest.raises(BadImage, match="too small") as small:
        read_image(data, min_size=25)
    assert small.value.reason == "too small"
    assert read_image(data, min_size=24, max_pixels=24 * 40).shape == (24, 40, 3)
    with pytest.raises(BadImage, match="too large"):
        read_image(data, max_pixels=24 * 40 - 1)


@pytest.mark.parametrize("side", [10_001, 14_000])
def test_decompression_bomb_is_too_large_before_it_is_decoded(side: int) -> None:
    """The header claims `side` squared pixels; the body holds none, so decoding it would say truncated."""
    assert 10_001**2 < PIXEL_LIMIT < 14_000**2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage) as caught:
            read_image(png(side, side, 8, 2, b""))
    assert caught.value.reason == "too large"


def test_plain_jpegs_are_recognised() -> None:
    picture = Image.fromarray(colours())
    exif = Image.Exif()
    exif[0x0112] = 6
    assert is_plain_jpeg(encode(picture, "JPEG"), 3)
    assert is_plain_jpeg(encode(picture.convert("L"), "JPEG"), 1)
    assert not is_plain_jpeg(encode(picture, "JPEG"), 1)
    assert not is_plain_jpeg(encode(picture, "JPEG", exif=exif), 3)
    assert not is_plain_jpeg(encode(picture, "JPEG", icc_profile=linear_profile()), 3)
    assert not is_plain_jpeg(encode(picture.convert("CMYK"), "JPEG"), 3)
    assert not is_plain_jpeg(encode(picture, "PNG"), 3)


def test_resize_modes() -> None:
    image = colours(60, 100)
    assert resize_image(image, 30, "squash").shape == (30, 30, 3)
    assert resize_image(image, 30, "shortest").shape == (30, 50, 3)
    assert resize_image(image, 30, "none") is image
    np.testing.assert_array_equal(resize_image(image, 60, "center_crop"), image[:, 20:80])
    assert resize_image(image[:, :60], 60, "center_crop").tobytes() == image[:, :60].tobytes()
    assert resize_image(image[:, :, :1], 30, "center_crop").shape == (30, 30, 1)
    with pytest.raises(ValueError, match="center_crop, squash"):
        resize_image(image, 30, "stretch")  # type: ignore[arg-type]


def test_center_crop_takes_the_centre() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 24:76] = 255  # beyond the square: the filter looks a little over its edge
    assert resize_image(image, 20, "center_crop").min() == 255


def test_shrinking_does_not_alias() -> None:
    """A checkerboard of single pixels, shrunk eightfold, is the mean grey; a resize without a filter shows bands."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    small = resize_image(board, 32, "squash")[2:-2, 2:-2].astype(float)
    assert np.abs(small - 127.5).max() <= 2
