"""States of a trial that others of its population may take over, named by images seen."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from launch.checkpoints import files
from tune.sweep import Sweep


class Handed:
    """The states in a trial's run folder.

    Args:
        run: the folder.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "handed"

    def path(self, images_seen: int) -> Path:
        """Where the state after so many images is."""
        return self.folder / f"{images_seen:012d}"

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
        return Path(shutil.copytree(self.path(images_seen), into, copy_function=os.link))


def needed(sweep: Sweep) -> int:
    """How many states a trial keeps: others take what it was when Ray Tune last looked, an interval ago at most."""
    return math.ceil(sweep.perturb_kimg / sweep.every_kimg) + 2
