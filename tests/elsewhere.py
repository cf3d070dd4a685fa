"""A stranger's package: installed outside the checkout, used by the command line, and shown on a page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PACKAGES = CHECKOUT / "tests" / "packages"
PAGE = CHECKOUT / "docs" / "add-a-family.md"


class Elsewhere:
    """A machine's user: works in ``folder``, with a package installed and no file of the checkout's tests.

    Args:
        folder: the user's.
        package: name of a folder of ``tests/packages``.
    """

    def __init__(self, folder: Path, package: str) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        installed, source = folder / "installed", folder / package
        shutil.copytree(PACKAGES / package, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
        pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        self.python(*pip, "--target", str(installed), str(source))
        shutil.rmtree(source)
        self.environment = {"PYTHONPATH": os.pathsep.join([str(installed), str(CHECKOUT)])}

    def python(self, *arguments: str) -> str:
        """What a Python process prints; it must succeed."""
        environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", **self.environment}
        environment.pop("GESSO_RUN", None)
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def gesso(self, *arguments: str) -> str:
        """What ``gesso`` prints."""
        return self.python("-m", "gesso", *arguments)

    def run(self, name: str) -> Path:
        """The folder of the one run of this name."""
        (found,) = (self.folder / "runs").glob(f"{name}*")
        return found


def assert_page_shows(section: str, package: str) -> None:
    """The section of docs/add-a-family.md has every file of the package, as it is."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"`([\w./-]+)`:\n\n```\w+\n(.*?)```\n", text, re.DOTALL))
    root = PACKAGES / package
    files = [
        file
        for file in root.rglob("*")
        if file.suffix in (".py", ".toml", ".yaml") and file.name != "__init__.py" and "build" not in file.parts
    ]
    assert shown.keys() == {str(file.relative_to(root)) for file in files}
    for file in files:
        assert shown[str(file.relative_to(root))] == file.read_text(), file
