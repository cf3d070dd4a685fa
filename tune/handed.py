"""States that a trial goes on from after it was halted, or that others of its population take over."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from launch.checkpoints import files
from launch.runs.folder import at_images
from tune.sweep import Sweep


class Handed:
    """The states in a trial's run folder, named by images seen.

    Args:
        run: the folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "handed"

    def path(self, images_seen: int) -> Path:
        """Where the state after so many images is."""
        return self.folder / at_images(images_seen)

    def images_seen(self) -> list[int]:
        """Of the states that are whole, the oldest first."""
        return sorted(int(path.name) for path in self.folder.glob("[0-9]" * 12) if files.is_complete(path))

    def keep(self, count: int) -> None:
        """Deletes all but the newest."""
        for images in self.images_seen()[:-count]:
            files.remove(self.path(images))

    def take(self, images_seen: int, into: Path) -> Path:
        """Gives a state a second name: whose it is may go on, and delete it, while another one reads.

        Raises:
            FileNotFoundError: it is gone.
        """
        return Path(shutil.copytree(self.path(images_seen), into, copy_function=link))


def needed(sweep: Sweep) -> int:
    """How many states each trial of a sweep keeps."""
    if sweep.population:
        # Others take what it was when Ray Tune last looked: an interval ago, or while the next one is being written.
        return math.ceil(sweep.perturb_kimg / sweep.every_kimg) + 2
    return 2 if sweep.scheduler == "asha" else 0


def link(source: str, target: str) -> None:
    """Gives a file a second name, or copies it where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
