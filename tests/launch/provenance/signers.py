"""Keys, certificates and small pictures for tests of credentials."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.provenance.identity import Identity, make_test_certificate, read_identity


def identity(folder: Path, name: str = "gesso test signer") -> Identity:
    """A new test certificate's."""
    key, certificate, _ = make_test_certificate(folder, name)
    return read_identity(key, certificate)


def pixels(side: int = 96, seed: int = 0) -> np.ndarray:
    """A picture of blurred blots, uint8 [side, side, 3]: there is something to see in it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def encoded(format: str, side: int = 24, seed: int = 0, **options: int) -> bytes:
    """Such a picture as a file."""
    stream = io.BytesIO()
    Image.fromarray(pixels(side, seed)).save(stream, format=format, **options)
    return stream.getvalue()


def film(file: Path) -> None:
    """Three frames of H.264."""
    av = pytest.importorskip("av")
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=5, width=32, height=32)
        stream.pix_fmt = "yuv420p"
        for seed in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels(32, seed))))
        container.mux(stream.encode(None))
