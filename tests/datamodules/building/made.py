"""Pictures for builds, and what a build made, read back with tarfile and PIL."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

random = np.random.default_rng(0)


def picture(height: int = 24, width: int = 32, channels: int = 3) -> Image.Image:
    noise = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(noise[:, :, 0] if channels == 1 else noise)


def photographs(folder: Path, count: int, height: int = 24, width: int = 32) -> Path:
    for number in range(count):
        file = folder / f"{'ab'[number % 2]}" / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(height, width).save(file)
    return folder


def contents(out: Path) -> dict[str, str]:
    """Checksums of everything that a build leaves."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def samples(out: Path, split: str = "train") -> list[dict[str, bytes]]:
    """Samples of a split as a plain tar reader finds them: extension -> bytes."""
    found: dict[str, dict[str, bytes]] = {}
    for tar in sorted(out.glob(f"{split}-*.tar")):
        with tarfile.open(tar) as archive:
            for member in archive:
                key, extension = member.name.split(".", 1)
                stream = archive.extractfile(member)
                assert stream is not None
                found.setdefault(key, {})[extension] = stream.read()
    return list(found.values())


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))
