"""Pickles from strangers: arrays load, and nothing runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from gesso.common.pickles import load_arrays


class Payload:
    """What a hostile pickle carries: creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_run_nothing(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps([np.arange(3), Payload(tmp_path / "owned")], protocol)
    with pytest.raises(ValueError, match="refused pickle"):
        load_arrays(data)
    assert not (tmp_path / "owned").exists()
    pickle.loads(data)  # the payload is a real one
    assert (tmp_path / "owned").exists()


def test_pickles_of_arrays_load() -> None:
    tree = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3)], "b": (np.array([1, 2]),)}
    loaded = load_arrays(pickle.dumps(tree, 4))
    np.testing.assert_array_equal(loaded["a"][0], tree["a"][0])
    np.testing.assert_array_equal(loaded["b"][0], [1, 2])
    with pytest.raises(ValueError, match="refused"):
        load_arrays(b"no pickle at all")
