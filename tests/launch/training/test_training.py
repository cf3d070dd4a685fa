"""What a training that is resumed says about configs and data that are not as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.training.training import Training, moved_data_named


@pytest.mark.parametrize("resumed", [True, False])
def test_a_resumed_run_says_how_to_name_moved_data(resumed: bool) -> None:
    with pytest.raises(FileNotFoundError) as caught, moved_data_named(resumed=resumed):
        raise FileNotFoundError("/data/old: no shard set here")
    assert ("--data.path" in str(caught.value)) == resumed


@pytest.mark.parametrize("kept", [2, 40, 99])
def test_a_config_that_was_cut_off_is_not_gone_on_with(tmp_path: Path, kept: int) -> None:
    whole = Path("tests/fixtures/before_the_house/vae/config.yaml").read_text().splitlines(keepends=True)
    (tmp_path / "config.yaml").write_text("".join(whole))
    assert Training(recipe=(), resume=tmp_path).layers()
    (tmp_path / "config.yaml").write_text("".join(whole[:kept]))
    with pytest.raises(ValueError, match=r"config\.yaml: cut off or edited: .*checkpoints (is|are) missing; restore"):
        Training(recipe=(), resume=tmp_path).layers()
