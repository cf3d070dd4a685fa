"""In a locale that is not UTF-8, files are named and written as everywhere else, and the screen shows what it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from gesso.common.locales import use_utf8
use_utf8()
Path(sys.argv[1]).write_text(sys.argv[1])
print(sys.argv[1], "猫", sys.stdout.encoding)
"""


@pytest.fixture(scope="module")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Latin-1 locale."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef")
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-f", "ISO-8859-1", "-i", "en_US", str(folder / "latin1")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no description of the locale")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    return {**bare, "LOCPATH": str(folder), "LC_ALL": "latin1"}


@pytest.mark.process
def test_names_are_utf8_and_the_screen_is_not(latin1: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), "Läufe"], cwd=tmp_path, env=latin1, capture_output=True, check=True
    )
    assert "Läufe".encode() in os.listdir(os.fsencode(tmp_path))
    assert (tmp_path / "Läufe").read_bytes() == "Läufe".encode()
    assert done.stdout.decode("latin-1").split() == ["Läufe", "?", "iso8859-1"]


@pytest.mark.process
def test_the_bars_of_classes_show_on_any_screen(latin1: dict[str, str], shards: Path) -> None:
    command = [sys.executable, "-m", "gesso", "shards", "inspect", str(shards)]
    ascii_screen = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"}
    for environment, bar in ((latin1, "###"), (ascii_screen, "###"), ({**os.environ, "PYTHONUTF8": "1"}, "███")):
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert bar in done.stdout.decode(errors="replace")
