"""What tests of several rooms look at."""

from __future__ import annotations

import pytest

from tests.clip import Clip


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A film of 48 frames whose motion is known."""
    return Clip(48)
