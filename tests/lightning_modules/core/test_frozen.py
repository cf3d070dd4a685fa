"""Frozen helper networks: they follow their owner's device, and nothing else sees them."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules.core.frozen import Frozen
from lightning_modules.networks.vgg import VGG19
from lightning_modules.style.adain import AdaIN
from tests.cycle import Cycle
from tests.lightning_modules.core.test_family import batches, train


class Owner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Linear(2, 2)
        self.helper = Frozen(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)))


def held(owner: Owner) -> nn.Sequential:
    return owner.helper.network


def test_nobody_lists_it() -> None:
    owner = Owner()
    assert set(owner.state_dict()) == {"trained.weight", "trained.bias"}
    assert [name for name, _ in owner.named_parameters()] == ["trained.weight", "trained.bias"]
    assert list(owner.buffers()) == []
    assert not owner.load_state_dict(nn.ModuleDict({"trained": nn.Linear(2, 2)}).state_dict()).missing_keys
    assert "helper" in dict(owner.named_children())


def test_it_follows_to_a_device_but_keeps_its_dtype() -> None:
    owner = Owner().to(torch.bfloat16)
    assert owner.trained.weight.dtype == torch.bfloat16
    assert held(owner)[0].weight.dtype == torch.float32
    owner.double().to(memory_format=torch.channels_last)
    assert held(owner)[0].weight.dtype == torch.float32
    owner.to("meta", torch.bfloat16)
    tensors = [*held(owner).parameters(), *held(owner).buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert held(owner)[0].weight.dtype == torch.float32


def test_it_stays_in_eval_mode_and_takes_no_gradient() -> None:
    owner = Owner().train()
    owner.requires_grad_(True)
    inputs = torch.randn(4, 2, requires_grad=True)
    before = copy.deepcopy(held(owner).state_dict())
    out = owner.helper(inputs)
    torch.testing.assert_close(out, held(owner)[1](held(owner)[0](inputs)))
    out.sum().backward()
    assert inputs.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in held(owner).parameters())
    assert all(torch.equal(value, held(owner).state_dict()[name]) for name, value in before.items())
    assert not any(module.training for module in held(owner).modules())


def test_copies_and_pickles_hold_it_too() -> None:
    owner = Owner()
    with io.BytesIO() as file:
        torch.save(owner, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(owner), pickle.loads(pickle.dumps(owner)), loaded):
        assert held(other) is not held(owner)
        assert torch.equal(held(other)[0].weight, held(owner)[0].weight)


@pytest.mark.parametrize("twice", [False, True])
def test_a_family_compiles_it_unless_something_is_differentiated_twice(
    twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[type] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *a, **k: compiled.append(type(self)))

    class Helped(Cycle):
        def requires_double_backward(self) -> tuple[str, ...]:
            return ("critic",) if twice else ()

    module = Helped(compile=True)
    module.helper = Frozen(nn.Linear(2, 2))
    module.configure_optimizers()
    assert (nn.Linear in compiled) is not twice
    assert Frozen not in compiled


def test_it_takes_no_part_in_training(tmp_path: Path) -> None:
    class Helped(Cycle):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.helper = Frozen(nn.Conv2d(1, 2, 3))

        def losses(self, batch: Any) -> Any:
            values = super().losses(batch)
            return {**values, "loss": values["loss"] + self.helper(self.ab(batch["image"])).square().mean()}

    torch.manual_seed(0)
    module = Helped()
    before = copy.deepcopy(module.helper.network.state_dict())
    train(module, batches(2), tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in module.helper.network.state_dict().items())
    assert not any("helper" in name for name in module.state_dict())


def test_a_checkpoint_of_adain_holds_the_decoder_alone() -> None:
    module = AdaIN(resolution=32)
    module._encoder = Frozen(VGG19(None))
    assert {name.partition(".")[0] for name in module.state_dict()} == {"decoder"}
    assert {name.partition(".")[0] for name, _ in module.named_parameters()} == {"decoder"}
    module.to(torch.bfloat16).to("meta")
    assert {(p.device.type, p.dtype) for p in module.encoder.parameters()} == {("meta", torch.float32)}
    with pytest.raises(RuntimeError, match="AdaIN has no encoder yet"):
        _ = AdaIN(resolution=32).encoder
