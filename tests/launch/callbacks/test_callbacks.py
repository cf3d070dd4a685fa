"""EMA against a closed form; intervals; checkpoints kept; a signal honoured at the end of a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from safetensors import SafetensorError

from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import Clock, Every
from launch.callbacks.ema import EMA
from launch.callbacks.interruption import Interrupted, Interruption
from launch.checkpoints import layout
from launch.inference.loading import load_family
from launch.runs.folder import RunFolder
from lightning_modules.core.averages import live_state
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions

BATCH = 8


class Images(L.LightningDataModule):
    """Noise pictures; remembers where training stands like the real data module."""

    position = 0

    def train_dataloader(self) -> Any:
        return Endless(self.position)

    def consumed(self, position: int) -> None:
        self.position = position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = state_dict["position"]


class Endless:
    def __init__(self, position: int) -> None:
        self.position = position

    def __iter__(self) -> Iterator[dict[str, Any]]:
        position = self.position
        while True:
            images = torch.rand(BATCH, 1, 32, 32, generator=torch.Generator().manual_seed(position)) * 2 - 1
            position += BATCH
            yield {"image": images, "position": position}


def small() -> DCGAN:
    torch.manual_seed(0)
    return DCGAN(
        resolution=32,
        channels=1,
        latent_dim=8,
        generator=GeneratorOptions(8, spectral_norm=True),
        discriminator=DiscriminatorOptions(8, spectral_norm=True),
    )


def train(path: Path, kimg: float, *callbacks: L.Callback, checkpoint: Path | None = None) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=path,
        callbacks=[Clock(kimg, 1.0), *callbacks],
    )
    trainer.fit(small(), Images(), ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_an_interval_comes_round_once_for_each_multiple() -> None:
    for batch in (1, 7, 64, 1500):
        every, due = Every(1.0), 0
        for before in range(0, 10_000 - batch, batch):
            due += every.due(before, before + batch)
        last = (10_000 - batch - 1) // batch * batch + batch
        assert due == (last // 1000 if batch <= 1000 else due)
        assert due > 0
    with pytest.raises(ValueError, match="more than 0"):
        Every(0)


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


def test_the_last_checkpoints_stay_and_the_average_is_what_loads(tmp_path: Path) -> None:
    trainer = train(tmp_path, 0.1, EMA(half_life_kimg=0.05), Checkpoints(every_kimg=0.02, keep_last=2))
    average = trainer.lightning_module.averages["ema"].values  # type: ignore[union-attr]
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000000000080", "000000000104", "last"]
    assert (tmp_path / "checkpoints" / "last").resolve().name == "000000000104"
    last = tmp_path / "checkpoints" / "last"
    module, origin = load_family(last)
    assert (origin["images_seen"], origin["average"]) == (104, True)
    assert all(torch.equal(tensor, average[name]) for name, tensor in live_state(module, ["generator"]).items())
    raw, _ = load_family(last, average=False)
    assert any(not torch.equal(tensor, average[name]) for name, tensor in live_state(raw, ["generator"]).items())


def test_a_signal_ends_training_after_a_whole_step_that_is_saved(tmp_path: Path) -> None:
    class CtrlC(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if pl_module.images_seen == 3 * BATCH:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGINT"):
        train(tmp_path, 1.0, CtrlC(), EMA(), Checkpoints(), Interruption())
    assert signal.getsignal(signal.SIGINT) is before
    checkpoint = layout.read(tmp_path / "checkpoints" / "last")
    assert checkpoint["gesso"]["images_seen"] == checkpoint["Images"]["position"] == 4 * BATCH


def test_a_full_disk_costs_nothing_that_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 0.04, EMA(), Checkpoints())
    saved = tmp_path / "checkpoints" / "last"
    before = layout.read(saved)

    def full(tensors: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(layout, "save_file", full)
    with pytest.raises(OSError, match=r"could not save .*No space left on device.*earlier checkpoints are untouched"):
        train(tmp_path, 0.08, EMA(), Checkpoints(), checkpoint=saved)
    assert layout.read(saved)["gesso"] == before["gesso"]
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_some_checkpoints_stay_for_good_and_the_best_one_too(tmp_path: Path) -> None:
    class Score(L.Callback):
        """Plays the evaluation: a metric that is best at 48 images."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            trainer.callback_metrics["val/loss"] = torch.tensor(abs(pl_module.images_seen - 48.0))
            trainer.state.fn = TrainerFn.FITTING
            checkpoints.on_validation_end(trainer, pl_module)

    checkpoints = Checkpoints(every_kimg=0.016, keep_last=1, keep_every_kimg=0.05, monitor="val/loss")
    train(tmp_path, 0.128, EMA(), checkpoints, Score())
    kept = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert kept == ["000000000048", "000000000064", "000000000112", "000000000128", "best", "last"]
    assert (tmp_path / "checkpoints" / "best").resolve().name == "000000000048"
    assert RunFolder(tmp_path).info()["best"] == {"metric": "val/loss", "value": 0.0, "checkpoint": "000000000048"}
