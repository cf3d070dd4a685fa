"""dwtDctSvd: against the definition written out, and after what is done to pictures."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from launch.provenance import watermark
from launch.provenance.watermark import DwtDctSvd, read_message, written_message
from tests.launch.provenance.signers import pixels

MESSAGE = b"studio\0\0"


def textured(side: int, seed: int = 0) -> np.ndarray:
    """A picture with fine texture, uint8 [side, side, 3]."""
    noise = np.random.default_rng(seed).normal(0, 12, (side, side, 3))
    return np.clip(pixels(side, seed) * 0.7 + 40 + noise, 0, 255).astype(np.uint8)


def test_blocks_are_quantised_as_the_published_method_does_it() -> None:
    plane = textured(256)[..., 0].astype(np.float64)
    mark = DwtDctSvd()
    bits = watermark._bits(MESSAGE)
    found = mark._quantised(plane, bits, 1)
    low = (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 2
    order = watermark._order(32 * 32, 1)
    for number in (0, 1, 517, 1023):
        top, left = 4 * (number // 32), 4 * (number % 32)
        values = cv2.dct(low[top : top + 4, left : left + 4])
        u, s, v = np.linalg.svd(values)
        s[0] = (s[0] // 36 + 0.25 + 0.5 * bits[order[number]]) * 36
        expected = cv2.idct(u @ np.diag(s) @ v)
        after = (found[::2, ::2] + found[1::2, ::2] + found[::2, 1::2] + found[1::2, 1::2]) / 2
        np.testing.assert_allclose(after[top : top + 4, left : left + 4], expected, atol=1e-9)
    # The details between the means are as they were.
    np.testing.assert_allclose(found[::2] - found[1::2], plane[::2] - plane[1::2], atol=1e-9)
    assert np.bincount(order, minlength=watermark.BITS).min() >= 11


@pytest.mark.parametrize("size", [(256, 256), (300, 500), (128, 200), (512, 384)])
def test_a_message_comes_out_again_and_is_not_seen(size: tuple[int, int]) -> None:
    image = textured(512)[: size[0], : size[1]]
    marked = DwtDctSvd().embed(image, MESSAGE)
    assert DwtDctSvd().extract(marked) == MESSAGE
    assert peak_signal_noise_ratio(image, marked) > 38
    assert DwtDctSvd().extract(image) is None


def test_it_lives_through_jpeg_and_halving_but_not_cropping() -> None:
    marked = Image.fromarray(DwtDctSvd().embed(textured(256), MESSAGE))
    stream = io.BytesIO()
    marked.save(stream, "JPEG", quality=80)
    assert DwtDctSvd().extract(np.asarray(Image.open(stream))) == MESSAGE
    assert DwtDctSvd().extract(np.asarray(marked.resize((128, 128), Image.Resampling.BICUBIC))) == MESSAGE
    assert DwtDctSvd().extract(np.asarray(marked.crop((20, 20, 236, 236)))) is None


def test_grey_and_flat_pictures() -> None:
    grey = textured(128)[..., :1]
    marked = DwtDctSvd().embed(grey, MESSAGE)
    assert marked.shape == grey.shape
    assert DwtDctSvd().extract(marked) == MESSAGE
    for value in (0, 90, 255):
        assert DwtDctSvd().extract(np.full((256, 256, 3), value, np.uint8)) is None
    assert DwtDctSvd().extract(np.zeros((3, 2, 3), np.uint8)) is None


def test_what_cannot_be_marked_is_refused() -> None:
    with pytest.raises(ValueError, match="28 x 40 pixels are too small for a watermark: 64 or more"):
        DwtDctSvd().embed(np.zeros((40, 28, 3), np.uint8), MESSAGE)
    with pytest.raises(ValueError, match="has 8 bytes, not 3"):
        DwtDctSvd().embed(textured(128), b"abc")


def test_messages_in_words() -> None:
    for text in ("studio", "é8", "0x0123456789abcdef"):
        assert written_message(read_message(text)) == text
    assert written_message(b"a\x1b\0\0\0\0\0\0") == "0x611b000000000000"
    for wrong in ("", "nine byte", "0xabc", "0x00", "0xzz23456789abcdef", "0x0000000000000000"):
        with pytest.raises(ValueError, match="--watermark"):
            read_message(wrong)
