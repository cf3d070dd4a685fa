"""Small trainings between two domains of noise, for the tests of translating families."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from launch.callbacks.ema import EMA
from lightning_modules.core.family import ImageFamily
from tests.trainers import bare_trainer

GLOBAL_BATCH = 4


class Domains(L.LightningDataModule):
    """Steps ``first`` to ``until``."""

    #: Name of the second stream, and shape of a batch of each.
    second = "image_b"
    shape: tuple[int, int, int, int] = (GLOBAL_BATCH, 1, 16, 16)

    def __init__(self, first: int, until: int) -> None:
        super().__init__()
        self.first, self.until = first, until

    def train_dataloader(self) -> Any:
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in range(self.first, self.until):
            a, b = torch.rand(2, *self.shape, generator=torch.Generator().manual_seed(step)) * 2 - 1
            yield {"image": a, self.second: b, "position": (step + 1) * len(a)}


def train(
    module: ImageFamily,
    folder: Path,
    first: int,
    until: int,
    resume: Path | None = None,
    *,
    data: type[Domains] = Domains,
    **options: Any,
) -> dict[str, Any]:
    """The checkpoint after step ``until``, which is also written to ``folder``."""
    ema = EMA(half_life_kimg=[0.02])
    trainer = bare_trainer(folder, callbacks=[ema], max_epochs=2 if resume else 1, **options)
    trainer.fit(module, data(first, until), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"step{until}.ckpt")
    found: dict[str, Any] = torch.load(folder / f"step{until}.ckpt", weights_only=True)
    return found


def check_same(whole: dict[str, Any], again: dict[str, Any]) -> None:
    """Checks that two checkpoints are alike to the bit."""
    for part in ("state_dict", "averages", "optimizer_states", "gesso"):
        wanted, found = _flat(whole[part]), _flat(again[part])
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            same = torch.equal(found[name], value) if isinstance(value, Tensor) else found[name] == value
            assert same, (part, name)


def _flat(state: Any, name: str = "") -> dict[str, Any]:
    """Everything in nested dicts, by its path."""
    if isinstance(state, dict):
        return {path: value for key, inner in state.items() for path, value in _flat(inner, f"{name}/{key}").items()}
    return {name: state}
