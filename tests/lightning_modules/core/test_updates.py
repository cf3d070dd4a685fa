"""Micro-batches of an update; updates themselves are compared with plain PyTorch in ``test_family.py``."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.core.updates import split_batch


def test_batches_are_cut_evenly_or_not_at_all() -> None:
    batch = {"image": torch.arange(6), "label": torch.arange(6), "caption": list("abcdef"), "position": 6}
    parts = split_batch(batch, 3)
    assert [part["caption"] for part in parts] == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert torch.equal(torch.cat([part["image"] for part in parts]), batch["image"])
    assert parts[2]["position"] == 6
    with pytest.raises(ValueError, match="6 images cannot be cut into 4"):
        split_batch(batch, 4)
