"""Moving averages against weighted sums of the recorded weights; a teacher that training reads; what is copied."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.core.averages import Average, Averages, live_state
from lightning_modules.core.family import Batch, ImageFamily, Losses, Preview
from lightning_modules.core.profiles import HalfLife, Power, Profile
from tests.trainers import bare_trainer

BATCH = 4


class Net(nn.Module):
    """A convolution, batch norm, and buffers of three kinds."""

    averaged_buffers = ("centre",)

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("centre", torch.zeros(3))
        self.register_buffer("w_avg", torch.zeros(3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            # One in place, one put anew.
            self.centre.add_(1.0)
            self.w_avg = self.w_avg + 1.0
        return self.dropout(self.norm(self.convolution(x)))


class Student(ImageFamily):
    """A student that follows its own average."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Net(), nn.Conv2d(3, 1, 1)
        self.seen: list[Tensor] = []

    def optimizers_by_network(self) -> dict[str, torch.optim.Optimizer]:
        return {name: torch.optim.SGD(getattr(self, name).parameters(), 0.1) for name in ("encoder", "head")}

    def own_averages(self) -> dict[str, Average]:
        return {"teacher": Average(HalfLife(0.008, ramp_up=0), ("encoder",))}

    def generating_networks(self) -> tuple[str, ...]:
        return ("encoder", "head")

    def step(self, batch: Batch) -> None:
        self.update("encoder", self.losses, batch)

    def losses(self, batch: Batch) -> Losses:
        target = self.averaged("teacher", "encoder")(batch["image"])
        assert not target.requires_grad
        self.seen.append(target)
        return {"loss": (self.encoder(batch["image"]) - target - 1).square().mean()}

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        return {}


class Pictures:
    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(12):
            yield {"image": torch.randn(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(number))}


class Record(L.Callback):
    """Keeps the weights of every step, and asks for averages."""

    def __init__(self, **profiles: Profile) -> None:
        self.profiles = profiles
        self.states: list[dict[str, Tensor]] = []

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        for name, profile in self.profiles.items():
            pl_module.averages.keep(name, profile, pl_module.generating_networks())

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.keep(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *rest: Any) -> None:
        self.keep(pl_module)

    def keep(self, module: ImageFamily) -> None:
        self.states.append({n: t.clone() for n, t in live_state(module, ("encoder", "head")).items()})


def train(path: Path, **profiles: Profile) -> tuple[Student, list[dict[str, Tensor]]]:
    torch.manual_seed(0)
    module, record = Student(), Record(**profiles)
    trainer = bare_trainer(path, callbacks=[record])
    trainer.fit(module, Pictures())
    return module, record.states


def summed(states: list[dict[str, Tensor]], profile: Profile) -> dict[str, Tensor]:
    """The average in fp64, as a sum of all states with their weights."""
    weights = torch.zeros(len(states), dtype=torch.float64)
    weights[0] = 1
    for number in range(1, len(states)):
        decay = profile.decay(BATCH, number * BATCH)
        weights *= decay
        weights[number] = 1 - decay
    return {
        name: sum((w * state[name].double() for w, state in zip(weights, states, strict=True)), torch.zeros(()))
        for name in states[0]
    }


def test_several_averages_are_weighted_sums_of_the_trajectory(tmp_path: Path) -> None:
    profiles: dict[str, Profile] = {
        "ema": HalfLife(0.02),
        "long": HalfLife(0.1, ramp_up=0.0),
        "narrow": Power(0.05),
        "wide": Power(0.1),
    }
    module, states = train(tmp_path, **profiles)
    for name, profile in {**profiles, "teacher": HalfLife(0.008, ramp_up=0)}.items():
        expected, values = summed(states, profile), module.averages[name].values
        for key, value in values.items():
            if key.endswith(("num_batches_tracked", "w_avg")):
                assert torch.equal(value, states[-1][key]), key
            else:
                torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6, msg=f"{name} {key}")
    assert "encoder.scratch" not in module.averages["ema"].values
    assert not any(key.startswith("head") for key in module.averages["teacher"].values)


def test_a_teacher_is_the_network_with_the_average_of_the_steps_before(tmp_path: Path) -> None:
    module, states = train(tmp_path)
    profile, batches = HalfLife(0.008, ramp_up=0), list(Pictures())
    for step in (0, 5, 11):
        plain = Net().eval()
        average = summed(states[: step + 1], profile)
        own = {k.removeprefix("encoder."): v.float() for k, v in average.items() if k.startswith("encoder.")}
        own |= {k: states[step][f"encoder.{k}"] for k in ("w_avg", "norm.num_batches_tracked")}
        plain.load_state_dict(own)
        torch.testing.assert_close(module.seen[step], plain(batches[step]["image"]), rtol=1e-4, atol=1e-5)


def test_a_teacher_in_training_mode_changes_neither_itself_nor_the_network(tmp_path: Path) -> None:
    module, _ = train(tmp_path)
    before = copy.deepcopy((module.averages["teacher"].values, module.state_dict()))
    batch = next(iter(Pictures()))["image"]
    module.encoder.eval()
    module.encoder.norm.train()
    noisy, quiet = (module.averaged("teacher", "encoder", training=mode)(batch) for mode in (True, False))
    assert (noisy == 0).float().mean() > 0.2 > (quiet == 0).float().mean()
    assert not module.encoder.training
    assert module.encoder.norm.training
    for ours, theirs in zip(before, (module.averages["teacher"].values, module.state_dict()), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with pytest.raises(ValueError, match="no average 'student'; there are teacher"):
        module.averaged("student", "encoder")
    with pytest.raises(ValueError, match="'teacher' is of encoder, not of head"):
        module.averaged("teacher", "head")


def test_an_average_is_in_place_only_inside(tmp_path: Path) -> None:
    module, states = train(tmp_path, ema=Power(0.1), other=HalfLife(0.01))
    tensors = live_state(module, ("encoder", "head"))
    with module.evaluating(), module.evaluating():
        assert not module.training
        assert all(torch.equal(tensor, module.averages["ema"].values[key]) for key, tensor in tensors.items())
        with pytest.raises(RuntimeError, match="'ema' is in place"), module.averages.in_place("other"):
            pass
    assert module.training
    assert all(torch.equal(tensor, states[-1][key]) for key, tensor in tensors.items())


def test_what_was_saved_goes_on(tmp_path: Path) -> None:
    module, _ = train(tmp_path, ema=Power(0.1))
    saved = copy.deepcopy(module.averages.state_dict())
    assert saved.keys() == {"ema", "teacher"}
    again = Averages(Student())
    again.load_state_dict(saved)
    again.keep("ema", HalfLife(1.0), ("encoder",))
    again.start({})
    assert all(torch.equal(value, saved["ema"][key]) for key, value in again["ema"].values.items())
    # A module that is not trained, as for `gesso validate`, has them too.
    read = Student()
    read.averages.load_state_dict(saved)
    with read.averages.in_place():
        assert torch.equal(read.encoder.convolution.weight, saved["ema"]["encoder.convolution.weight"])
    assert not torch.equal(read.encoder.convolution.weight, saved["ema"]["encoder.convolution.weight"])
