"""Steps in which nothing may wait for the device: CUDA is told so in all but the first, with all callbacks at work."""

from __future__ import annotations

import pytest
import torch

from tests.gpu import host


@pytest.mark.slow
def test_waiting_is_refused_in_every_step_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", told.append)
    host.unsynchronised("vae", "32-true", "cpu", steps=3)
    assert told == ["default", "error", "default", "error", "default"]
