"""What reports are written of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.report.finished import finished_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with every part that a report can show."""
    return finished_run(tmp_path / "my run")
