"""The import contract itself: what it finds, and that this tree keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.import_contracts import find_circles

ROOT = Path(__file__).parents[1]


def test_circles_are_found() -> None:
    assert find_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert find_circles({"b": {"a"}, "a": {"b"}, "c": {"a"}}) == [["a", "b"]]
    two = find_circles({"d": {"x"}, "x": {"y"}, "y": {"z"}, "z": {"x", "d"}})
    assert sorted(two) == [["d", "x", "y", "z"], ["x", "y", "z"]]


def test_this_tree_keeps_the_contract() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
