"""CycleGAN: losses and gradients of the authors' code, its pools, resuming, and two ranks against one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.networks.unet_generator import UnetGenerator, UnetGeneratorOptions
from lightning_modules.translation.cyclegan import CycleGAN
from tests.formulas import gradient_sums, set_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.translation.domains import GLOBAL_BATCH, Domains, check_same, train

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "cyclegan.npz"
#: Our names to the authors'.
NETWORKS = {"generator_ab": "G_A", "generator_ba": "G_B", "discriminator_b": "D_A", "discriminator_a": "D_B"}
GENERATORS = {
    "loss": "G",
    "adversarial_b": "G_A",
    "adversarial_a": "G_B",
    "cycle_a": "cycle_A",
    "cycle_b": "cycle_B",
    "identity_b": "idt_A",
    "identity_a": "idt_B",
}


def small(**options: Any) -> CycleGAN:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "resolution": 16,
        "channels": 1,
        "pool_size": 6,
        "generator": ResnetGeneratorOptions(4, 1),
        "discriminator": PatchDiscriminatorOptions(4, 2, "instance"),
    }
    return CycleGAN(**(chosen | options))


def test_losses_and_gradients_are_those_of_the_authors() -> None:
    module = small(
        resolution=24,
        lambda_b=7.0,
        generator=ResnetGeneratorOptions(4, 6),
        discriminator=PatchDiscriminatorOptions(4, 3, "instance"),
    ).double()
    for number, name in enumerate(NETWORKS):
        set_weights_(getattr(module, name), scale=0.2 + 0.02 * number)
    batch = {"image": waves(2, 1, 24, 24, number=3), "image_b": waves(2, 1, 24, 24, number=4)}
    module.requires_grad_(False)
    module.generator_ab.requires_grad_()
    module.generator_ba.requires_grad_()
    losses = module.generator_losses(batch)
    losses["loss"].backward()
    module.requires_grad_()
    fakes_a, fakes_b = (torch.cat(fakes) for fakes in module._fakes)
    of_a = module.discriminator_a_losses({**batch, "shown": fakes_a})["loss"]
    of_b = module.discriminator_b_losses({**batch, "shown": fakes_b})["loss"]
    (of_a + of_b).backward()
    weights = {"cycle_a": 10.0, "cycle_b": 7.0, "identity_a": 5.0, "identity_b": 3.5}
    with np.load(REFERENCE) as reference:
        for key, theirs in GENERATORS.items():
            ours = losses[key].item() * weights.get(key, 1.0)
            assert ours == pytest.approx(reference[f"losses/{theirs}"].item(), rel=1e-10), key
        assert of_b.item() == pytest.approx(reference["losses/D_A"].item(), rel=1e-10)
        assert of_a.item() == pytest.approx(reference["losses/D_B"].item(), rel=1e-10)
        for name, theirs in NETWORKS.items():
            expected = torch.from_numpy(reference[f"sums/{theirs}"])
            found = gradient_sums(getattr(module, name))
            assert (found - expected).abs().max() <= 1e-10 * expected.abs().max(), name


def test_generators_that_change_nothing_lose_nothing_by_cycles_and_identity() -> None:
    module = small()
    module.generator_ab = module.generator_ba = nn.Identity()  # type: ignore[assignment]
    losses = module.generator_losses(next(iter(Domains(0, 1))))
    assert {key for key, value in losses.items() if value == 0} == {"cycle_a", "cycle_b", "identity_a", "identity_b"}


def test_without_identity_there_is_no_such_term() -> None:
    losses = small(lambda_identity=0.0).generator_losses(next(iter(Domains(0, 1))))
    expected = sum(losses[f"adversarial_{end}"] + 10 * losses[f"cycle_{end}"] for end in "ab")
    torch.testing.assert_close(losses["loss"], expected)
    assert "identity_a" not in losses


# ---- training -------------------------------------------------------------------------------------------------------


class Watched(CycleGAN):
    """Keeps what the generators made and what the discriminators were shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def shown(self, pool: Any, fakes: Tensor) -> Tensor:
        found = super().shown(pool, fakes)
        self.seen.append((fakes, found))
        return found


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_resumed_training_is_the_same_to_the_bit(micro_batches: int, tmp_path: Path) -> None:
    """Interrupted when the pools are full; all networks, averages, optimizers and the pools."""
    whole = train(small(micro_batches=micro_batches), tmp_path, 0, 6)
    train(small(micro_batches=micro_batches), tmp_path, 0, 3)
    again = train(small(micro_batches=micro_batches), tmp_path, 3, 6, tmp_path / "step3.ckpt")
    assert whole["state_dict"]["pool_a.pictures"].abs().amin((1, 2, 3)).gt(0).any()
    check_same(whole, again)


def test_discriminators_are_shown_earlier_pictures_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"resolution": 16, "channels": 1, "pool_size": 6}
    networks: dict[str, Any] = {
        "generator": ResnetGeneratorOptions(4, 1),
        "discriminator": PatchDiscriminatorOptions(4, 2, "instance"),
    }
    module = Watched(**options, **networks)
    train(module, tmp_path, 0, 8)
    swaps = []
    for domain in (0, 1):
        made, shown = (torch.cat([step[kind] for step in module.seen[domain::2]]) for kind in (0, 1))
        sources = [next(n for n, fake in enumerate(made) if torch.equal(fake, picture)) for picture in shown]
        swaps.append([source < number for number, source in enumerate(sources)])
        assert sources[:6] == list(range(6))
        assert 5 <= sum(swaps[-1]) <= 21
        assert all(source <= number for number, source in enumerate(sources))
    assert swaps[0] != swaps[1]


def ranks(folder: Path, *jobs: dict[str, Any]) -> dict[str, Any]:
    """The jobs' checkpoints on up to two ranks, by their names."""
    every = [{"family": "cyclegan", **job} for job in jobs]
    run_ranks("tests.launch.strategies.rank_program", folder, every, ranks=2)
    return {job["name"]: torch.load(folder / f"{job['name']}.pt", weights_only=True) for job in jobs}


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    """In float64: in float32 Adam makes whole steps of rounding errors, where a gradient is 0, as of biases here."""
    alike: dict[str, Any] = {"until": 4, "precision": "64-true"}
    found = ranks(
        tmp_path,
        {**alike, "name": "one", "strategy": "auto", "devices": 1},
        {**alike, "name": "two", "strategy": "ddp", "micro_batches": 2},
    )
    one, two = found["one"]["state_dict"], found["two"]["state_dict"]
    assert one.keys() == two.keys()
    assert one["pool_a.pictures"].abs().amin((1, 2, 3)).gt(0).any()
    for name, value in one.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.proof
def test_every_stage_of_zero_trains_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "cyclegan", ("ddp", "zero1", "zero2", "zero3"), until=3)


# ---- afterwards -----------------------------------------------------------------------------------------------------


def test_it_translates_both_ways_at_any_size() -> None:
    module, images = small().eval(), torch.rand(3, 1, 21, 34) * 2 - 1
    there, back = (module.translate(images, direction) for direction in module.directions())
    assert there.shape == back.shape == images.shape
    assert not torch.equal(there, back)


def test_generators_may_be_unets() -> None:
    module, images = small(architecture="unet", unet=UnetGeneratorOptions(4, 3)), torch.rand(3, 1, 21, 34) * 2 - 1
    assert isinstance(module.generator_ba, UnetGenerator)
    assert module.translate(images, "b-to-a").shape == images.shape
    module.generator_losses(next(iter(Domains(0, 1))))["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.generator_ab.parameters())


def test_previews_show_pairs_and_cycles() -> None:
    module = small()
    held_out = next(iter(Domains(0, 1)))
    with module.evaluating():
        previews = module.previews(held_out, seed=0)
    assert {name: (len(preview.images), preview.columns) for name, preview in previews.items()} == {
        "samples": (4 * GLOBAL_BATCH, GLOBAL_BATCH),
        "cycles": (6 * GLOBAL_BATCH, GLOBAL_BATCH),
    }
    a, fake_b, back = previews["cycles"].images.split(GLOBAL_BATCH)[:3]
    torch.testing.assert_close(a, held_out["image"])
    torch.testing.assert_close(module.generator_ba(fake_b), back)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution 8 is too small for a discriminator with 2 layers, which wants 12"):
        small(resolution=8)
    with pytest.raises(ValueError, match="lambda_a is -1"):
        small(lambda_a=-1.0)
    with pytest.raises(ValueError, match=r"the data has channels 3.*--model\.channels 3"):
        small().check_data(channels=3, resolution=16, num_classes=0)
