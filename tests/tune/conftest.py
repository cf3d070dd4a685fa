"""Ray on this machine, for sweeps of a family that trains in no time."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.tune.lab import Lab


@pytest.fixture
def lab(shards: Path, tmp_path: Path) -> Lab:
    recipe = tmp_path / "planted.yaml"
    content = {
        "model": {"class_path": "tests.tune.planted.Planted"},
        "data": {"class_path": "ShardData", "init_args": {"path": str(shards), "global_batch_size": 8, "workers": 0}},
        "trainer": {"precision": "32-true"},
        "run": {"name": "planted", "kimg": 0.064, "log_every_kimg": 0.016, "wandb": "disabled"},
        "evaluation": {"every_kimg": 0.016, "metrics": []},
        "checkpoints": {"every_kimg": 0.016, "monitor": None},
        "previews": {"every_kimg": 1.0},
    }
    recipe.write_text(yaml.safe_dump(content))
    return Lab(recipe=recipe, root=tmp_path)
