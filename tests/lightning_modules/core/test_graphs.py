"""Steps that are replayed have the results of steps that are not: to the bit, with nothing left to the host."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from launch.callbacks.ema import EMA
from lightning_modules.core import graphs
from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.graphs import StepGraphs
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.updates import Losses
from tests.lightning_modules.core.tape import NoCapture, Tape
from tests.lightning_modules.core.test_device_reads import FAMILIES, STYLE
from tests.pictures import photographs
from tests.trainers import bare_trainer

STEPS = 6


class Recording(L.Callback):
    """Makes the family replay its steps."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ImageFamily)
        pl_module.graphs = StepGraphs(pl_module, Tape)


def batches(family: str) -> list[dict[str, Tensor]]:
    """Batches that all differ."""
    count = 2 if family in STYLE else 4
    images = photographs(32)
    images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
    made = []
    for number in range(STEPS):
        turned = images.roll((number, 2 * number), (2, 3)) * (1 - 0.02 * number)
        label = (torch.arange(count) + number) % 3
        made.append({"image": turned, "style": turned.flip(0), "image_b": turned.flip(3), "label": label})
    return made


class Small(ImageFamily):
    """Learns the mean of images."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(1, 3)
        self.mean.register_buffer("count", torch.zeros(()))

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"mean": OptimizerOptions()}

    def generating_networks(self) -> tuple[str, ...]:
        return ("mean",)

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        return {}

    def step_kind(self) -> Hashable:
        return ()

    def step(self, batch: Batch) -> None:
        self.update("mean", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        images = batch["image"]
        made = self.mean(self.randn(len(images), 1))
        return {"loss": (made - images.mean((2, 3))).square().mean()}


class Replacing(Small):
    """Replaces a buffer in each step."""

    def step(self, batch: Batch) -> None:
        super().step(batch)
        self.mean.count = self.mean.count + 1


class Noting(Small):
    """Updates twice, the second time by what it has noted the first time, and replaces a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Tensor] = []

    def step(self, batch: Batch) -> None:
        super().step(batch)
        noted, self.noted = torch.cat(self.noted).mean(), []
        self.update("mean", lambda part: {"loss": super(Noting, self).losses(part)["loss"] * noted}, batch)
        self.mean.count = self.mean.count + noted

    def losses(self, batch: Batch) -> Losses:
        self.noted.append(self.mean(self.randn(len(batch["image"]), 1)).float().detach().square())
        return super().losses(batch)


class Counting(Small):
    """Changes a buffer in its place in each step."""

    def step(self, batch: Batch) -> None:
        super().step(batch)
        self.mean.count.add_(1)


class Drawing(Small):
    """Draws twice in every other step, and does not say so."""

    def losses(self, batch: Batch) -> Losses:
        if self.steps_done % 2:
            self.rand(2)
        return super().losses(batch)


class Fading(Small):
    """Has a weight that changes in the first steps."""

    def weight(self) -> float:
        return 0.5**self.steps_done if self.steps_done < 3 else 0.0

    def step_kind(self) -> Hashable:
        return self.weight()

    def losses(self, batch: Batch) -> Losses:
        return {"loss": super().losses(batch)["loss"] + self.weight() * self.mean.weight.square().sum()}


def fitted(module: ImageFamily, path: Path) -> ImageFamily:
    bare_trainer(path, callbacks=[Recording()]).fit(module, DataLoader(batches("vae"), batch_size=None))
    return module


def trained(family: str, precision: str, path: Path, *callbacks: L.Callback) -> ImageFamily:
    torch.manual_seed(0)
    module = FAMILIES[family]()
    plugins: list[Precision] = [MixedPrecision("16-mixed", "cpu")] if precision == "16-mixed" else []
    chosen: dict[str, Any] = {"plugins": plugins} if plugins else {"precision": precision}
    trainer = bare_trainer(path, callbacks=[EMA(), *callbacks], **chosen)
    trainer.fit(module, DataLoader(batches(family), batch_size=None))
    return module


def everything(module: ImageFamily) -> dict[str, Any]:
    """All that a training leaves."""
    state: dict[str, Any] = {f"weight {key}": value for key, value in module.state_dict().items()}
    for name in module.trained_networks:
        for number, own in enumerate(module.optimizer_of(name).state_dict()["state"].values()):
            state |= {f"optimizer {name} {number} {key}": value for key, value in own.items()}
        state |= {f"group {name}": {**module.optimizer_of(name).state_dict()["param_groups"][0], "params": None}}
    for name, values in module.averages.state_dict().items():
        state |= {f"{name} {key}": value for key, value in values.items()}
    state["losses"] = module.loss_means.saved(lambda sums: sums[None])
    state["skips"] = module.skips.totals()
    state["steps"] = module.steps_done, module.trainer.global_step
    return state


#: Families of which each step decides something on the host: they train as usual.
AS_USUAL = ("cyclegan", "ganformer", "meanflow", "r3gan", "stargan", "stylegan1", "stylegan2", "stylegan3")


#: Families whose steps are of all sorts; the others are compared in the proofs.
OFTEN = ("lazy_r1", "wgan", "micro_batches", "stylegan2", "munit", "adain")


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step of each kind is captured."""
    monkeypatch.setattr(graphs, "WARM_UP", 1)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *(pytest.param(name, "32-true", marks=() if name in OFTEN else pytest.mark.proof) for name in FAMILIES),
        ("lazy_r1", "bf16-mixed"),
        ("vae", "16-mixed"),
        ("edm", "bf16-true"),
    ],
)
def test_replayed_steps_leave_what_steps_leave(family: str, precision: str, tmp_path: Path) -> None:
    expected = everything(trained(family, precision, tmp_path))
    module = trained(family, precision, tmp_path, Recording())
    found = everything(module)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value) if isinstance(value, Tensor) else found[key] == value, key
    assert module.graphs is not None
    assert (module.graphs.replayed > 0) == (family not in AS_USUAL)


def test_a_step_that_replaces_a_buffer_is_not_captured(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="cannot be captured.*replaces its buffers"):
        module = fitted(Replacing(), tmp_path)
    assert module.graphs is not None
    assert module.graphs.replayed == 0
    assert module.steps_done == STEPS


@pytest.mark.parametrize("calls", [12, 60, 120, None])
def test_a_capture_that_fails_leaves_no_trace(calls: int | None, tmp_path: Path) -> None:
    expected, found = Noting(), Noting()
    found.load_state_dict(expected.state_dict())

    def record(trainer: L.Trainer, module: ImageFamily) -> None:
        module.graphs = StepGraphs(module, lambda: NoCapture(calls))

    for module, callbacks in ((expected, []), (found, [LambdaCallback(on_train_start=record)])):
        trainer = bare_trainer(tmp_path, callbacks=callbacks, precision="bf16-mixed")
        with pytest.warns(UserWarning, match="cannot be captured") if callbacks else contextlib.nullcontext():
            trainer.fit(module, DataLoader(batches("vae"), batch_size=None))
    states = everything(found), everything(expected)
    assert states[0].keys() == states[1].keys()
    for key, value in states[1].items():
        assert torch.equal(states[0][key], value) if isinstance(value, Tensor) else states[0][key] == value, key


def test_replays_say_which_buffers_they_write_to(tmp_path: Path) -> None:
    versions: list[int] = []
    watch = LambdaCallback(on_train_batch_end=lambda trainer, module, *_: versions.append(module.mean.count._version))
    module = Counting()
    trainer = bare_trainer(tmp_path, callbacks=[Recording(), watch])
    trainer.fit(module, DataLoader(batches("vae"), batch_size=None))
    assert module.graphs is not None
    assert module.graphs.replayed == STEPS - 2
    assert module.mean.count.item() == STEPS
    # Strategies share what has a new version with the other ranks.
    assert len(set(versions)) == STEPS


def test_other_draws_than_before_are_not_captured(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="draws other noise"):
        module = fitted(Drawing(), tmp_path)
    assert module.steps_done == STEPS


def test_a_number_that_changes_makes_a_kind_of_its_own(tmp_path: Path) -> None:
    module = fitted(Fading(), tmp_path)
    # The first three steps have weights 1, 1/2, 1/4, all others none: one as usual, one captured, one replayed.
    assert module.graphs is not None
    assert module.graphs.replayed == STEPS - 5


def test_asked_for_on_a_cpu_says_so_and_trains(tmp_path: Path) -> None:
    module = FAMILIES["vae"]()
    module.cuda_graphs = True
    with pytest.warns(UserWarning, match="no graphs on a device of kind cpu"):
        bare_trainer(tmp_path).fit(module, DataLoader(batches("vae"), batch_size=None))
    assert module.graphs is None
    assert module.steps_done == STEPS


def test_an_heir_speaks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = fitted(Replacing(), tmp_path)
    monkeypatch.setattr(Replacing, "device", torch.device("cuda"))
    assert str(graphs.obstacle(module)).startswith("Replacing has no step_kind of its own")
    monkeypatch.setattr(Replacing, "step_kind", Small.step_kind)
    assert graphs.obstacle(module) is None
