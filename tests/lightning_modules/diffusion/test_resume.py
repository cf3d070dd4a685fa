"""A training that is interrupted and resumed ends, bit for bit, where one that goes through does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from launch.callbacks.ema import EMA
from tests.launch.strategies.rank_program import Rows
from tests.lightning_modules.diffusion.families import TRAINED, trained
from tests.trainers import bare_trainer

pytestmark = pytest.mark.slow


def train(family: str, folder: Path, first: int, until: int, resume: Path | None = None) -> dict[str, Any]:
    """The checkpoint after step ``until``; with dropout where the network has it, and accumulated gradients."""
    network = TRAINED[family][1]
    if network.architecture != "dit":
        network = replace(network, dropout=0.2)
    module = trained(family, network=network, micro_batches=2)
    trainer = bare_trainer(folder, callbacks=[EMA(half_life_kimg=[0.02])], max_epochs=2 if resume else 1)
    trainer.fit(module, Rows(first, until, []), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"step{until}.ckpt")
    return torch.load(folder / f"step{until}.ckpt", weights_only=True)


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Everything in nested dicts, by its path."""
    if isinstance(state, dict):
        return {path: value for key, inner in state.items() for path, value in flat(inner, f"{name}/{key}").items()}
    return {name: state}


@pytest.mark.parametrize("family", list(TRAINED))
def test_a_resumed_training_is_the_same_to_the_bit(family: str, tmp_path: Path) -> None:
    """Stages of 3 steps, where the family has them: the interruption is within one."""
    whole = train(family, tmp_path, 0, 8)
    train(family, tmp_path, 0, 4)
    again = train(family, tmp_path, 4, 8, tmp_path / "step4.ckpt")
    for part in ("state_dict", "averages", "optimizer_states"):
        wanted, found = flat(whole[part]), flat(again[part])
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            same = torch.equal(found[name], value) if isinstance(value, Tensor) else found[name] == value
            assert same, (part, name)
    assert whole["gesso"] == again["gesso"]


def test_larger_batches_after_an_interruption_do_not_end_a_stage_again(tmp_path: Path) -> None:
    """Stages of 24 images: 32 were seen, of which 8 in the second stage, when batches of 16 follow."""
    before = train("progressive", tmp_path, 0, 4)
    module = trained("progressive")
    images = torch.rand(16, 1, 32, 32) * 2 - 1
    trainer = bare_trainer(tmp_path, callbacks=[EMA(half_life_kimg=[0.02])], max_epochs=2)
    batches = DataLoader([{"image": images, "label": torch.arange(16) % 3}], batch_size=None)
    trainer.fit(module, batches, ckpt_path=tmp_path / "step4.ckpt", weights_only=True)
    assert module.images_seen == 48
    for name, value in module.state_dict().items():
        if name.startswith("teacher_network."):
            assert torch.equal(value, before["state_dict"][name]), name
