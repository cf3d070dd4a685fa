"""A step's compute: how it is spread over updates, beside torch's own counter, and that it is measured."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from launch.planning import compute, footprint
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.gan.dcgan import DCGAN
from tests.launch.planning.memory_program import make
from tests.lightning_modules.diffusion.families import TRAINED, trained

GAN = {"resolution": 32, "channels": 1, "width": 8, "latent_dim": 8, "normalization": "layer"}


def test_the_shares_of_an_update_are_what_torch_counts() -> None:
    module = VAE.from_options({"resolution": 32, "channels": 1})
    (update,) = compute.updates(module, 4)
    assert (update.names, update.per_step) == (("autoencoder",), 1)
    with FlopCounterMode(display=False) as forward:
        loss = module.held_out_losses(compute.example_batch(module, 4))["loss"]
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    whole = forward.get_total_flops() + backward.get_total_flops()
    assert update.forward == pytest.approx(forward.get_total_flops() / whole, rel=0.01)
    assert update.backward == pytest.approx(backward.get_total_flops() / whole, rel=0.01)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_networks_in_turn_share_a_step(penalty: float) -> None:
    module = make({"model": {**GAN, "r1_gamma": penalty}})
    before = {name: value.clone() for name, value in module.named_parameters()}
    found = {update.names: update for update in compute.updates(module, 2)}
    assert found.keys() == {("discriminator",), ("generator",)}
    assert sum(update.forward + update.backward for update in found.values()) == pytest.approx(1)
    assert all(0 < update.forward < 1 and 0 < update.backward < 1 for update in found.values())
    assert all(torch.equal(value, before[name]) for name, value in module.named_parameters())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_penalty_makes_its_update_dearer() -> None:
    plain, with_r1 = (
        {u.names[0]: u.forward + u.backward for u in compute.updates(make({"model": {**GAN, "r1_gamma": gamma}}), 2)}
        for gamma in (0.0, 1.0)
    )
    assert with_r1["discriminator"] > 1.2 * plain["discriminator"]


#: Forward passes in a step: ECT's target is one, two steps of a teacher are two, a forward derivative costs two.
PASSES = {"edm": 1, "edm2": 1, "flow": 1, "ddpm": 1, "ect": 2, "progressive": 3, "meanflow": 4}


@pytest.mark.parametrize("family", list(TRAINED))
def test_diffusion_models_can_be_planned(family: str) -> None:
    module = trained(family)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    (network, *others) = footprint.networks(module)
    assert network.zero_refusal is None
    assert not any(other.trained for other in others)
    assert [other.name for other in others if other.numels] == ["teacher_network"] * (family == "progressive")
    (update,) = compute.updates(module, 4)
    # Backward costs two passes.
    assert update.forward / update.backward == pytest.approx(PASSES[family] / 2, rel=0.1)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.slow
def test_a_step_is_measured_by_training() -> None:
    module = DCGAN.from_options(GAN)
    before = [parameter.clone() for parameter in module.parameters()]
    seconds = compute.seconds_of_step(module, 2, accelerator="cpu", seconds=0)
    assert 0 < seconds < 10
    assert module.steps_done == compute.WARM_UP + compute.LEAST_STEPS
    assert not all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
