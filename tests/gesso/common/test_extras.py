"""What is not installed is named with its remedy, and pyproject.toml brings what the table says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gesso.common.extras import EXTRAS, needing

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
#: Where a module's package has another name.
PACKAGES = {
    "sklearn": "scikit-learn",
    "c2pa": "c2pa-python",
    "fastapi_offline": "fastapi-offline",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def test_a_missing_extra_is_one_line() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=r"^av is not installed; run: pip install 'gesso\[video\]'$"),
        needing("video"),
    ):
        raise ModuleNotFoundError("No module named 'av.packet'", name="av.packet")


def test_other_missing_modules_are_not_explained_away() -> None:
    with pytest.raises(ModuleNotFoundError, match="^No module named 'gone'$"), needing("video"):
        raise ModuleNotFoundError("No module named 'gone'", name="gone")


@pytest.mark.parametrize("extra", EXTRAS)
def test_pyproject_brings_it_and_a_plain_installation_does_not(extra: str) -> None:
    brought = {re.split(r"[\[<>=~]", line)[0] for line in PYPROJECT["optional-dependencies"][extra]}
    assert brought == {PACKAGES.get(module, module) for module in EXTRAS[extra]}
    plain = {re.split(r"[\[<>=~]", line)[0] for line in PYPROJECT["dependencies"]}
    assert not brought & plain
    assert extra in PYPROJECT["optional-dependencies"]["all"][0]


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("launch.inference.video", "video"),
        ("datamodules.decoding.restart", "markers"),
        ("tune.drive", "tune"),
        ("tune.space", "tune"),
        ("launch.provenance.identity", "provenance"),
        ("launch.serving.server", "serve"),
        ("launch.ui.server", "serve"),
    ],
)
def test_rooms_that_need_an_extra_say_so(module: str, extra: str) -> None:
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in EXTRAS[extra])
    program = f"import sys; {hidden}; import {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert f"run: pip install 'gesso[{extra}]'" in done.stderr.splitlines()[-1]


def test_training_needs_no_extra() -> None:
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for names in EXTRAS.values() for name in names)
    rooms = "launch.training.fit, launch.evaluation.driver, datamodules.shards, slurm.submit, gesso.cli.main"
    program = f"import sys; {hidden}; import {rooms}; assert 'wandb' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
