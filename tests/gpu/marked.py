"""The tests that are marked `gpu`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tests.gpu.parts import ROOT, Place, last_line
from tests.gpu.rows import Row

MARK = "@pytest.mark.gpu"


def marked_tests(place: Place) -> Iterator[Row]:
    """Runs them with pytest, only in the files that have any: others import what this machine may not have."""
    files = marked_files(ROOT / "tests")
    report = place.out / "marked.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    if not report.is_file():
        raise RuntimeError(last_line(done.stdout + done.stderr))
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error")]
        skipped = [child for child in case if child.tag == "skipped"]
        detail = next((str(child.get("message")) for child in (*wrong, *skipped)), "")
        state = "failed" if wrong else "skipped" if skipped else "ok"
        yield Row("marked_tests", str(case.get("name")), "", state, detail=last_line(detail))  # type: ignore[arg-type]


def marked_files(folder: Path) -> list[Path]:
    """Test files under a folder in which a test is marked."""
    return [file for file in sorted(folder.rglob("test_*.py")) if MARK in file.read_text(encoding="utf-8")]
