"""What a training leaves behind in a process: nothing that another part of the program reads."""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest
import torch
from lightning import seed_everything

from launch.training.surroundings import untouched_process


def _disturb() -> None:
    seed_everything(5, workers=True, verbose=False)
    warnings.filterwarnings("ignore", message="anything")
    assert os.environ["PL_GLOBAL_SEED"] == "5"
    raise OSError("ends")


def test_the_process_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_SEED_WORKERS", "9")
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

    def drawn() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        expected = drawn()
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        filters = list(warnings.filters)
        with pytest.raises(OSError, match="ends"), untouched_process():
            _disturb()
        assert drawn() == expected
        assert warnings.filters == filters
        assert "PL_GLOBAL_SEED" not in os.environ
        assert os.environ["PL_SEED_WORKERS"] == "9"
