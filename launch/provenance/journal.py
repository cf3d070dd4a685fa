"""A journal of fingerprints, which finds pictures that have lost their signature: JSON lines, only added to.

The fingerprint is PDQ (Facebook 2019, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm"): 256
bits of the luminance's coarse waves. Saved again, smaller, brighter or blurred, a picture changes few of them; cropped,
turned or mirrored it changes half, and is not found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from gesso.common.extras import needing
from gesso.common.files import append, json_lines, sha256
from gesso.common.text import harmless

with needing("provenance"):
    import pdqhash

#: The journal's name where none is given: it lies beside the pictures.
NAME = "fingerprints.jsonl"
#: Fingerprints no more bits apart than this are one picture's, as PDQ's authors advise.
NEAR = 31
#: Pictures are brought to this size first, in pixels.
SIDE = 512
#: PDQ's own measure of how much there is to see, 0 to 100; below this, fingerprints of unlike pictures are alike.
TELLING = 50


@dataclass(frozen=True)
class Fingerprint:
    """256 bits, uint8 [32], and how telling they are, 0 to 100."""

    bits: np.ndarray
    quality: int

    @classmethod
    def of(cls, image: np.ndarray) -> Fingerprint:
        """The fingerprint of a picture, uint8 [H, W, 1 or 3] in sRGB, taken at ``SIDE`` x ``SIDE`` pixels.

        PDQ picks single pixels out of pictures that are small already: of halves of one picture, 20 bits would differ.
        """
        smaller = min(image.shape[:2]) >= SIDE
        rgb = cv2.resize(
            np.broadcast_to(image, (*image.shape[:2], 3)),
            (SIDE, SIDE),
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )
        bits, quality = pdqhash.compute(rgb)
        return cls(np.packbits(np.asarray(bits, np.uint8)), int(quality))


@dataclass(frozen=True)
class Entry:
    """What a journal knows of a picture; strings are made safe to print.

    Args:
        file: its name when it was written.
        run: of its making.
        made: when, in ISO 8601.
        distance: bits between the fingerprints.
    """

    file: str
    run: str
    made: str
    distance: int


def enter(journal: Path, file: Path, image: np.ndarray | None, facts: Mapping[str, object]) -> None:
    """Appends a written file to a journal.

    Args:
        journal: made where there is none; a line that a killed writer has begun costs no other line.
        file: the file.
        image: what is in it, uint8 [H, W, 1 or 3]; None: a video, of which only the whole file's sum is kept.
        facts: plain data on its making.

    Raises:
        OSError: it cannot be written.
    """
    line: dict[str, object] = {
        "file": file.name,
        "sha256": sha256(file),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: facts[name] for name in ("run", "seed") if facts.get(name) is not None},
    }
    if image is not None:
        fingerprint = Fingerprint.of(image)
        line.update(pdq=fingerprint.bits.tobytes().hex(), quality=fingerprint.quality)
    append(journal, json.dumps(line) + "\n")


class Journal:
    """The fingerprints of one journal or several, to look pictures up in.

    Args:
        files: journals; lines that are none of theirs are passed over.

    Raises:
        FileNotFoundError: there is no such journal.
    """

    def __init__(self, *files: Path) -> None:
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such journal; `--sign` and `--journal` write one")
        self._entries = [entry for file in files for entry in _telling(file)]
        bits = [bits for bits, _ in self._entries]
        self._bits = np.stack(bits) if bits else np.zeros((0, 32), np.uint8)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, image: np.ndarray) -> Entry | None:
        """The nearest picture of the journal to one, uint8 [H, W, 1 or 3]; None: it knows none like it."""
        looked_up = Fingerprint.of(image)
        if not len(self) or looked_up.quality < TELLING:
            return None
        distances = np.unpackbits(self._bits ^ looked_up.bits, axis=1).sum(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] > NEAR:
            return None
        line = self._entries[nearest][1]
        file, run, made = (harmless(line.get(name, "")) for name in ("file", "run", "made"))
        return Entry(file, run, made, int(distances[nearest]))


def _telling(file: Path) -> Iterator[tuple[np.ndarray, dict[str, object]]]:
    """The lines whose fingerprints can be compared."""
    for line in json_lines(file):
        pdq, quality = line.get("pdq"), line.get("quality")
        if not isinstance(pdq, str) or not isinstance(quality, int) or quality < TELLING:
            continue
        try:
            bits = bytes.fromhex(pdq)
        except ValueError:
            continue
        if len(bits) == 32:
            yield np.frombuffer(bits, np.uint8), line
