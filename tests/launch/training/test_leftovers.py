"""Variables of a launcher that is gone: the only process of a training is its first rank, or says why it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from launch.training.leftovers import RANK_VARIABLES, check_rank
from launch.training.training import Training


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 0)


@pytest.mark.parametrize("name", RANK_VARIABLES)
def test_a_leftover_rank_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(name, "1")
    options = {"run.root": str(tmp_path / "runs"), "trainer.accelerator": "cpu", "trainer.devices": 1}
    with pytest.raises(ValueError, match=rf"^{name}=1 .*unset {name}`") as caught:
        Training("mnist-vae", options | {"data.path": "nowhere"}).build()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    # A real launcher's ranks belong to a training of several.
    check_rank(2)


def test_the_remedy_names_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "LOCAL_RANK": "0", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="RANK=3 .*`unset RANK LOCAL_RANK SLURM_PROCID`"):
        check_rank(1)
    # What comes first decides, as in Lightning: the first task of a SLURM job's step is no leftover.
    monkeypatch.setenv("RANK", "0")
    check_rank(1)


def test_a_variable_that_was_removed_counts_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    check_rank(2)
    assert rank_zero_only.rank == 1  # type: ignore[attr-defined]
    check_rank(1)
    assert rank_zero_only.rank == 0  # type: ignore[attr-defined]
