"""What every family's training is held to: the same losses under every strategy, on two ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launch.strategies.ranks import run_ranks


def strategies_train_alike(
    folder: Path, family: str, strategies: Sequence[str], *, until: int, abs: float = 1e-5, **options: Any
) -> None:
    """Trains a family of ``rank_program`` under each strategy, and compares its losses with those of the first.

    Args:
        folder: for the ranks' files.
        family: its name there.
        strategies: names.
        until: number of steps.
        abs: how far apart losses may be, beside a thousandth of them.
        options: other parts of the jobs.
    """
    jobs = [{**options, "family": family, "name": name, "strategy": name, "until": until} for name in strategies]
    run_ranks("tests.launch.strategies.rank_program", folder, jobs, ranks=2)
    first, *others = (torch.load(folder / f"{name}.pt", weights_only=True)["losses"] for name in strategies)
    for name, losses in zip(strategies[1:], others, strict=True):
        for ours, wanted in zip(losses, first, strict=True):
            assert ours == pytest.approx(wanted, rel=1e-3, abs=abs), name
