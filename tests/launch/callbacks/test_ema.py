"""EMA against a closed form, and where it is in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.ema import EMA
from launch.checkpoints import layout
from lightning_modules.core.averages import live_state
from tests.launch.callbacks.small_training import BATCH, train


def test_ema_is_the_geometric_mean_of_the_trajectory(tmp_path: Path) -> None:
    half_life = 0.02
    trajectory: list[dict[str, torch.Tensor]] = []

    class Record(L.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self.on_train_batch_end(trainer, pl_module)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            trajectory.append({name: tensor.clone() for name, tensor in live_state(pl_module, ["generator"]).items()})

    ema = EMA(half_life_kimg=half_life, ramp_up=0.0)
    trainer = train(tmp_path, 0.08, ema, Record(), Checkpoints())
    average = trainer.lightning_module.averages["ema"].values  # type: ignore[union-attr]
    beta = 0.5 ** (BATCH / (half_life * 1000))
    weights = [beta ** (len(trajectory) - 1), *((1 - beta) * beta**k for k in reversed(range(len(trajectory) - 1)))]
    assert sum(weights) == pytest.approx(1.0)
    for name in ("generator.project.parametrizations.weight.original", "generator.blocks.0.norm.running_var"):
        if name not in trajectory[0]:
            name = next(n for n in trajectory[0] if n.endswith(name.rpartition(".")[2]))
        expected = sum(w * state[name].double() for w, state in zip(weights, trajectory, strict=True))
        torch.testing.assert_close(average[name].double(), expected, rtol=1e-4, atol=1e-6)
    unit = next(name for name in average if name.endswith("_u"))
    assert torch.equal(average[unit], trajectory[-1][unit])


def test_the_average_is_in_place_only_inside_the_context(tmp_path: Path) -> None:
    ema = EMA(half_life_kimg=0.05)
    trainer = train(tmp_path, 0.04, ema, Checkpoints())
    module: Any = trainer.lightning_module
    module.train()
    raw = {name: tensor.clone() for name, tensor in live_state(module, ["generator"]).items()}
    average = {name: tensor.clone() for name, tensor in module.averages["ema"].values.items()}
    assert any(not torch.equal(raw[name], average[name]) for name in raw)
    with module.evaluating(), module.evaluating():
        assert not module.training
        assert all(torch.equal(tensor, average[name]) for name, tensor in live_state(module, ["generator"]).items())
    assert module.training
    assert all(torch.equal(tensor, raw[name]) for name, tensor in live_state(module, ["generator"]).items())


def test_an_average_by_width_cannot_begin_in_the_middle(tmp_path: Path) -> None:
    """What a power-function average weighs goes back to the first image; half-lives may change at any time."""
    train(tmp_path, 0.016, EMA(0.05, widths=[0.05, 0.1]), Checkpoints())
    saved = layout.read(tmp_path / "checkpoints" / "last")
    assert saved["gesso"]["profiles"] == {"ema": "half_life_0.05", "power_0.05": "power_0.05", "power_0.1": "power_0.1"}
    for ema in (EMA([0.1, 7.0], widths=[0.1]), EMA(0.05, widths=[0.1, 0.05]), EMA(0.05)):
        ema.check_saved(saved)
    for ema in (EMA(0.05, widths=[0.05, 0.2]), EMA([], widths=[0.2, 0.1])):
        said = r"width 0\.2 cannot begin at 0\.016 kimg, .* keep --ema\.widths '\[0\.05, 0\.1\]'"
        with pytest.raises(ValueError, match=said):
            ema.check_saved(saved)
    # A width in the first place, whose name says nothing; and a checkpoint that tells no profiles.
    first = {**saved, "gesso": {**saved["gesso"], "profiles": {"ema": "power_0.2", "power_0.1": "power_0.1"}}}
    EMA([], widths=[0.2, 0.1]).check_saved(first)
    with pytest.raises(ValueError, match=r"width 0\.25 cannot begin"):
        EMA([], widths=[0.25, 0.1]).check_saved(first)
    del first["gesso"]["profiles"]
    EMA([], widths=[0.25, 0.1]).check_saved(first)
