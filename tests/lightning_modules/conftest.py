"""What tests of several rooms look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.clip import Clip


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A film of 48 frames whose motion is known."""
    return Clip(48)


@pytest.fixture
def double() -> Iterator[None]:
    """Makes networks and inputs in float64, where rounding errors stay small."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[torch.float64, torch.float32], ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """The default dtype, in which networks that are compared with their authors', and inputs, are made."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)
