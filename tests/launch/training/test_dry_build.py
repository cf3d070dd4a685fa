"""What a rehearsal changes, for the machine that it runs on, reaches no file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from launch.runs.folder import RunFolder
from launch.training.dry_build import dry_build
from launch.training.lightning_cli import save_config
from launch.training.training import Training


@pytest.mark.parametrize("accelerator", ["auto", "cpu", "gpu"])
def test_the_config_is_the_one_that_was_asked_for(tmp_path: Path, accelerator: str) -> None:
    asked = {"data.path": str(tmp_path / "set"), "trainer.accelerator": accelerator}
    cli = dry_build(Training("mnist-vae", asked))
    assert type(cli.trainer.accelerator).__name__ == "CPUAccelerator"
    save_config(cli, RunFolder(tmp_path))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["accelerator"] == accelerator
