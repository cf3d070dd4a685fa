"""What becomes of each picture on its way into its file: marked, signed, entered into the journal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from launch.checkpoints.files import run_and_sum
from launch.provenance.credentials import Parent, check_signable, sign_file
from launch.provenance.identity import Identity
from launch.provenance.journal import NAME, enter
from launch.provenance.watermark import Watermark, written_message
from launch.runs.folder import RunFolder


@dataclass(frozen=True)
class Publication:
    """A ``Finish`` for ``launch.inference.pictures.save_frames``: what each picture gets besides its pixels.

    Args:
        facts: plain data on how the pictures are made, for gesso's own assertion; see ``facts_of``.
        identity: who signs; None: nobody.
        journal: file of fingerprints; None: the one beside the picture, if it is signed or marked.
        watermark: how ``message`` is put into pictures; None: it is not.
        message: of the watermark.
        source: the picture or video that these are made of; None: they are generated.
    """

    facts: Mapping[str, object]
    identity: Identity | None = None
    journal: Path | None = None
    watermark: Watermark | None = None
    message: bytes = b""
    source: Path | None = None

    def of(self, source: Path) -> Publication:
        """The same for pictures that are made of ``source``."""
        return replace(self, source=source)

    def with_facts(self, facts: Mapping[str, object]) -> Publication:
        """The same with more facts."""
        return replace(self, facts={**self.facts, **facts})

    def check(self, path: Path) -> Path:
        """Raises a ValueError where a file of this name can hold no credentials; gives ``path`` back."""
        return check_signable(path) if self.identity else path

    def mark(self, image: np.ndarray) -> np.ndarray:
        """A picture, uint8 [H, W, 1 or 3], with the watermark in it, if there is to be one.

        One that cannot be read again even now, such as some of 64 pixels, is told on stderr.
        """
        if self.watermark is None:
            return image
        marked = self.watermark.embed(image, self.message)
        if self.watermark.extract(marked) != self.message:
            size = f"{image.shape[1]} x {image.shape[0]} pixels"
            print(f"gesso: a picture of {size} does not hold its watermark: it cannot be read from it", file=sys.stderr)
        return marked

    def seal(self, file: Path, title: str) -> None:
        """Signs a whole file that has yet to get its name ``title``."""
        if self.identity is not None:
            parent = None if self.source is None else Parent.of(self.source)
            sign_file(file, self.identity, self._all_facts(), title=title, parent=parent)

    def enter(self, path: Path, image: np.ndarray | None) -> None:
        """Enters a file, and the picture in it, into the journal; None: a video."""
        enter(self.journal or path.parent / NAME, path, image, self.facts)

    def _all_facts(self) -> dict[str, object]:
        facts = {name: value for name, value in self.facts.items() if value is not None}
        if self.watermark is not None:
            facts["watermark"] = {"method": self.watermark.name, "message": written_message(self.message)}
        return facts


def facts_of(origin: Mapping[str, Any], family: str, **more: object) -> dict[str, object]:
    """How pictures of a trained run are made, as plain data.

    Args:
        origin: what ``launch.inference.loading.load_family`` gives.
        family: the class's name.
        more: a seed, styles ...; None is left out.
    """
    path = Path(origin["path"])
    run, total = run_and_sum(path)
    folder = path.resolve().parent.parent
    identity = RunFolder(folder).info().get("identity") if path.is_dir() else None
    facts = {
        "run": run,
        "run_identity": identity,
        "checkpoint_sha256": total,
        "kimg": origin["images_seen"] / 1000,
        "weights": "average" if origin["average"] else "raw",
        "family": family,
        **more,
    }
    return {name: value for name, value in facts.items() if value is not None}
