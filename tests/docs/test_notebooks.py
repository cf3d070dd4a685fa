"""The notebooks do what they say: their cells run one after the other, in an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))

#: Runs the code cells in one namespace, as a kernel does; without Jupyter, which nothing else here needs.
RUNNER = """
import json, sys
def run(file):
    names = {"__name__": "__notebook__"}
    for number, cell in enumerate(json.load(open(file))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    return names
if __name__ == "__main__":
    names = run(sys.argv.pop())
    print("the end", names["run"].state, names["run"].images_seen)
"""


def cells(notebook: Path) -> list[str]:
    content = json.loads(notebook.read_text())
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(notebook: Path) -> None:
    content = json.loads(notebook.read_text())
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in content["cells"])
    text = "".join(cells(notebook))
    for word in ("argv", "subprocess", "!gesso", "os.system"):
        assert word not in text


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    runner = tmp_path / "runner.py"
    runner.write_text(RUNNER)
    done = subprocess.run(
        [sys.executable, str(runner), str(notebook)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "the end finished 5024"
