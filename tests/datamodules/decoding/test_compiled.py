"""Compilation where there is no place for a cache."""

from __future__ import annotations

import pytest
from numba import njit
from numba.core import caching

from datamodules.decoding.compiled import compiled


def increment(number: int) -> int:
    return number + 1


def test_a_read_only_installation_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):  # so it would be without further ado
        njit(cache=True)(increment)
    assert compiled(increment)(1) == 2
