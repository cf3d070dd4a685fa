"""Training states that trials keep, to continue after a pause or to be copied by other trials (PBT)."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from launch.checkpoints import files
from launch.runs.folder import at_images
from tune.sweep import Sweep


class KeptStates:
    """The training states in a trial's run folder, named by images seen.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "handed"

    def path(self, images_seen: int) -> Path:
        """The folder of the state after ``images_seen`` images."""
        return self.folder / at_images(images_seen)

    def images_seen(self) -> list[int]:
        """The images seen of each complete state, the oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]" * 12) if files.is_complete(path))

    def keep(self, count: int) -> None:
        """Deletes all but the newest ``count`` states."""
        for images in self.images_seen()[:-count]:
            files.remove(self.path(images))

    def take(self, images_seen: int, into: Path) -> Path:
        """Copies a state to ``into``, by hard links where possible: its owner may delete the original meanwhile.

        Returns:
            ``into``.

        Raises:
            FileNotFoundError: the state no longer exists.
        """
        return Path(shutil.copytree(self.path(images_seen), into, copy_function=link))


def needed(sweep: Sweep) -> int:
    """The number of states that each trial of a sweep keeps."""
    if sweep.population:
        # Others copy the state of Ray Tune's last look: an interval ago, while the next one may be being written.
        return math.ceil(sweep.perturb_kimg / sweep.every_kimg) + 2
    return 2 if sweep.scheduler == "asha" else 0


def link(source: str, target: str) -> None:
    """Makes a hard link, or copies the file where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
