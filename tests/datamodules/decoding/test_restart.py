"""Restart markers against libjpeg-turbo's own, by way of PIL, and crops against the whole image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as skimage_data

from datamodules.decoding.decode import Part, decode_part
from datamodules.decoding.images import BadImage
from datamodules.decoding.jpeg import RESTARTS, Box, jpeg_frame
from datamodules.decoding.restart import with_restart_markers
from datamodules.streaming.transforms import DRAWS, Augment

HEIGHT, WIDTH = 230, 320
PHOTO = Image.fromarray(skimage_data.astronaut()[:HEIGHT, :WIDTH])
SAMPLINGS = ["444", "422", "420", "440", "411", "Gray"]


def encode(image: Image.Image = PHOTO, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def sampled(sampling: str, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """A part of the photograph, with chroma of so many pixels."""
    part = PHOTO.crop((0, 0, width, height))
    if sampling == "Gray":
        return encode(part.convert("L"))
    return simplejpeg.encode_jpeg(np.asarray(part), 90, colorsubsampling=sampling)


def scan(data: bytes) -> bytes:
    return data[data.rindex(b"\xff\xda") :]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def decode(data: bytes, box: Box, channels: int = 3, reduce: int = 1) -> Part:
    frame = jpeg_frame(data)
    assert frame is not None
    return decode_part(data, frame, channels, box, reduce=reduce)


@pytest.mark.parametrize(("subsampling", "units"), [(0, 8), (1, 4), (2, 2)])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 7}])
@pytest.mark.slow
def test_codes_are_those_of_libjpeg(subsampling: int, units: int, options: dict[str, int]) -> None:
    """Whatever markers a file had, its scan is the one that libjpeg-turbo writes with the same markers, to the byte."""
    marked = with_restart_markers(encode(subsampling=subsampling, **options))
    assert scan(marked) == scan(encode(subsampling=subsampling, restart_marker_blocks=units))


def test_codes_of_a_grey_image_are_those_of_libjpeg() -> None:
    grey = PHOTO.convert("L")
    assert scan(with_restart_markers(encode(grey))) == scan(encode(grey, restart_marker_blocks=8))


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (17, 300), (230, 317), (203, 150)])
def test_nothing_is_lost(sampling: str, size: tuple[int, int]) -> None:
    """PIL finds the same pixels, also in images whose blocks no two columns divide."""
    data = sampled(sampling, *size)
    marked = with_restart_markers(data)
    assert RESTARTS in marked
    assert np.array_equal(pixels(marked), pixels(data))
    assert with_restart_markers(marked) is marked


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_tables_made_for_one_image(quality: int) -> None:
    """They lack codes for DC differences that do not occur: then the image may stay as it is, but never change."""
    data = encode(quality=quality, optimize=True)
    assert np.array_equal(pixels(with_restart_markers(data)), pixels(data))


def test_what_else_the_file_says_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = encode(exif=exif, comment=b"a remark", icc_profile=b"sRGB" * 20, dpi=(300, 300))
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(with_restart_markers(data)))
    assert after.getexif()[0x010F] == "a camera"
    for key in ("comment", "icc_profile", "dpi"):
        assert after.info[key] == before.info[key]


@pytest.mark.parametrize(
    "data",
    [
        encode(progressive=True),
        encode(PHOTO.convert("CMYK")),
        encode()[: len(encode()) // 2],
        encode()[:-2],
        encode()[:300],
        b"\xff\xd8",
        b"no image",
    ],
)
def test_what_cannot_have_markers_stays_as_it_is(data: bytes) -> None:
    assert with_restart_markers(data) is data


@pytest.mark.slow
def test_truncated_files_stay_as_they_are() -> None:
    data = encode(PHOTO.resize((64, 48)), restart_marker_rows=1)
    for length in range(len(data)):
        assert with_restart_markers(data[:length]) == data[:length]


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=150)
@pytest.mark.slow
def test_damaged_files_do_no_harm(at: float, bit: int) -> None:
    damaged = bytearray(encode(PHOTO.resize((64, 48))))
    damaged[int(at * len(damaged))] ^= 1 << bit
    assert isinstance(with_restart_markers(bytes(damaged)), bytes)


@pytest.mark.slow
@given(
    sampling=st.sampled_from(SAMPLINGS),
    reduce=st.sampled_from([1, 2, 4, 8]),
    channels=st.sampled_from([1, 3]),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(deadline=None, max_examples=300)
def test_boxes_are_as_in_the_whole_image(
    sampling: str, reduce: int, channels: int, edges: tuple[float, float, float, float]
) -> None:
    data = sampled(sampling)
    top, bottom = sorted(int(edge * HEIGHT) for edge in edges[:2])
    left, right = sorted(int(edge * WIDTH) for edge in edges[2:])
    box = Box(top, left, max(1, bottom - top), max(1, right - left))
    part = decode(with_restart_markers(data), box, channels, reduce)
    whole = decode(data, Box(0, 0, HEIGHT, WIDTH), channels, reduce).image
    # As ``Augment`` rounds it, and one pixel further.
    rows = slice(max(0, box.top // reduce - 1), min(len(whole), -(-(box.top + box.height) // reduce) + 1))
    columns = slice(max(0, box.left // reduce - 1), min(whole.shape[1], -(-(box.left + box.width) // reduce) + 1))
    ours = part.image[rows.start - part.top : rows.stop - part.top, columns.start - part.left :]
    assert np.array_equal(ours[:, : columns.stop - columns.start], whole[rows, columns])


@pytest.mark.slow
def test_what_lies_around_a_box_is_left_out() -> None:
    marked = with_restart_markers(sampled("420"))
    part = decode(marked, Box(100, 100, 20, 30))
    # Units of 16 pixels, intervals of two of them, and four pixels around the box.
    assert (part.top, part.left) == (96, 96)
    assert part.image.shape == (32, 64, 3)
    # Whoever does not know the segment searches from the top.
    assert decode(sampled("420"), Box(100, 100, 20, 30)).image.shape == (124, WIDTH, 3)


@pytest.mark.slow
@given(places=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=300)
def test_a_forged_segment_does_no_harm(places: list[tuple[int, int]]) -> None:
    """Whatever it says, there is an image or a BadImage, and no byte is read or written elsewhere."""
    marked = bytearray(with_restart_markers(encode(PHOTO.resize((128, 96)))))
    start = marked.index(RESTARTS) - 4
    for place, value in places:
        marked[start + place % (len(marked) - start)] = value
    data = bytes(marked)
    frame = jpeg_frame(data)
    assert frame is not None
    try:
        part = decode_part(data, frame, 3, Box(30, 30, 20, 20))
    except BadImage:
        return
    assert part.top <= 30
    assert part.left <= 30
    assert part.image.shape[0] >= 50 - part.top
    assert part.image.shape[1] >= 50 - part.left


@pytest.mark.parametrize("crop", ["center", "random", "random_resized", "none"])
@pytest.mark.parametrize("size", [16, 40, 100])
def test_batches_are_the_same(crop: Any, size: int) -> None:
    augment = Augment(size, crop, flip=True, color_jitter=0.2)
    data = sampled("420")
    marked = with_restart_markers(data)
    plain, ours = np.empty((2, size, size, 3), np.uint8)
    for draws in np.random.default_rng(0).random((60, DRAWS)).tolist():
        augment.render(data, plain, draws)
        augment.render(marked, ours, draws)
        assert np.array_equal(ours, plain)
