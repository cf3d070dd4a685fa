"""CUT and FastCUT: losses and gradients of the authors' code, drawn places, resuming, and two ranks against one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.translation.cut import CUT, compared_maps
from tests.formulas import gradient_sums, set_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.translation.domains import GLOBAL_BATCH, Domains, check_same, train

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "cut.npz"
#: Our networks to the authors'.
NETWORKS = {"generator": "G", "discriminator": "D", "projection": "F"}
#: A step is of 2e-4. Biases that a norm takes out again have gradients of nothing but rounding, which Adam enlarges.
ROUNDING = 2e-6
FAST: dict[str, Any] = {"lambda_nce": 10.0, "nce_identity": False, "flip_equivariance": True}


def small(**options: Any) -> CUT:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "resolution": 16,
        "channels": 1,
        "patches": 12,
        "projection_width": 8,
        "generator": ResnetGeneratorOptions(4, 2, antialias=True),
        "discriminator": PatchDiscriminatorOptions(4, 2, "instance", antialias=True),
    }
    return CUT(**(chosen | options))


class Chosen(CUT):
    """Takes the places and flips that the authors' code was given."""

    def places(self, maps: list[Tensor], count: int) -> list[Tensor]:
        areas = [x.shape[2] * x.shape[3] for x in maps]
        return [((torch.arange(min(20, area)) * 7 + 3) % area).expand(len(maps[0]), -1) for area in areas]

    def flips(self, count: int, batches: int) -> Tensor | None:
        return torch.ones(count * batches, dtype=torch.bool) if self.flip_equivariance else None


@pytest.mark.parametrize("kind", ["cut", "fastcut"])
def test_losses_and_gradients_are_those_of_the_authors(kind: str) -> None:
    module = Chosen(
        resolution=24,
        channels=1,
        projection_width=8,
        generator=ResnetGeneratorOptions(4, 5, antialias=True),
        discriminator=PatchDiscriminatorOptions(4, 3, "instance", antialias=True),
        **(FAST if kind == "fastcut" else {}),
    ).double()
    for number, name in enumerate(NETWORKS):
        set_weights_(getattr(module, name), scale=0.2 + 0.02 * number)
    batch = {"image": waves(2, 1, 24, 24, number=3), "image_b": waves(2, 1, 24, 24, number=4)}
    module.discriminator.requires_grad_(False)
    losses = module.generator_losses(batch)
    losses["loss"].backward()
    module.discriminator.requires_grad_()
    (fake,) = module._fakes
    of_d = module.discriminator_losses({**batch, "fake": fake})["loss"]
    of_d.backward()
    # The authors' losses are logged with their weight.
    found = {"G": losses["loss"], "G_GAN": losses["adversarial"], "NCE": module.lambda_nce * losses["nce"], "D": of_d}
    if kind == "cut":
        found["NCE_Y"] = losses["nce_identity"]
    with np.load(REFERENCE) as reference:
        for key, ours in found.items():
            assert ours.item() == pytest.approx(reference[f"{kind}/losses/{key}"].item(), rel=1e-10), key
        np.testing.assert_allclose(fake.numpy(), reference[f"{kind}/fake"], rtol=0, atol=1e-10)
        for name, theirs in NETWORKS.items():
            expected = torch.from_numpy(reference[f"{kind}/sums/{theirs}"])
            assert (gradient_sums(getattr(module, name)) - expected).abs().max() <= 1e-10 * expected.abs().max(), name


def test_the_maps_are_those_of_the_paper() -> None:
    assert list(compared_maps(ResnetGeneratorOptions(), 3).values()) == [3, 128, 256, 256, 256]
    assert list(compared_maps(ResnetGeneratorOptions(8, 3), 1)) == ["pixels", "down1", "down2", "block1", "block3"]
    assert list(compared_maps(ResnetGeneratorOptions(8, 1), 1)) == ["pixels", "down1", "down2", "block1"]


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        module = CUT()
    sizes = {name: sum(p.numel() for p in getattr(module, name).parameters()) for name in module.optimization()}
    assert sizes == {"generator": 11_378_179, "projection": 560_384, "discriminator": 2_764_737}


def test_every_picture_has_places_of_its_own_and_none_twice() -> None:
    module = small()
    maps = [torch.zeros(6, 1, 22, 22), torch.zeros(6, 8, 3, 3)]
    first, second = module.places(maps, 3)
    assert first.shape == (6, 12)
    # Of a map with fewer places all of them.
    assert second.sort(dim=1).values.tolist() == [list(range(9))] * 6
    for rows in first.tolist():
        assert len(set(rows)) == 12
        assert min(rows) >= 0
        assert max(rows) < 22 * 22
    assert len({tuple(rows) for rows in first.tolist()}) == 6


def test_a_generator_that_changes_nothing_is_found_everywhere() -> None:
    """Queries are then the keys, and each is nearest to itself: less than what a blind guess loses."""
    module = small()
    set_weights_(module.generator)
    images = waves(2, 1, 16, 16).float()
    with torch.no_grad():
        maps = module.generator(images, module.maps)
        same = module.contrast(maps, maps, 2)
        other = module.contrast([x.flip(0) for x in maps], maps, 2)
    assert same < other
    assert same < np.log(12)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "micro_batches"), [({}, 2), (FAST, 1)])
def test_a_resumed_training_is_the_same_to_the_bit(options: Any, micro_batches: int, tmp_path: Path) -> None:
    """All networks, averages and optimizers."""
    whole = train(small(micro_batches=micro_batches, **options), tmp_path, 0, 4)
    train(small(micro_batches=micro_batches, **options), tmp_path, 0, 2)
    again = train(small(micro_batches=micro_batches, **options), tmp_path, 2, 4, tmp_path / "step2.ckpt")
    assert set(whole["optimizer_states"]) == {"generator", "projection", "discriminator"}
    check_same(whole, again)


@pytest.mark.parametrize("options", [{}, FAST])
def test_micro_batches_and_checkpointing_change_nothing(options: Any, tmp_path: Path) -> None:
    def state(folder: str, *, micro_batches: int, gradient_checkpointing: bool) -> dict[str, Tensor]:
        generator = ResnetGeneratorOptions(4, 2, antialias=True, gradient_checkpointing=gradient_checkpointing)
        module = small(micro_batches=micro_batches, generator=generator, **options)
        states: dict[str, Tensor] = train(module, tmp_path / folder, 0, 3, precision="64-true")["state_dict"]
        return states

    expected = state("whole", micro_batches=1, gradient_checkpointing=False)
    found = state("parts", micro_batches=2, gradient_checkpointing=True)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < ROUNDING, name


def ranks(folder: Path, *jobs: dict[str, Any]) -> dict[str, Any]:
    """The jobs' checkpoints on up to two ranks, by their names."""
    run_ranks("tests.launch.strategies.rank_program", folder, [{"family": "cut", **job} for job in jobs], ranks=2)
    return {job["name"]: torch.load(folder / f"{job['name']}.pt", weights_only=True) for job in jobs}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("family", ["cut", "fastcut"])
def test_two_ranks_train_like_one(family: str, tmp_path: Path) -> None:
    """In float64: in float32 Adam makes whole steps of rounding errors, where a gradient is 0, as of biases here."""
    alike: dict[str, Any] = {"until": 3, "precision": "64-true", "family": family}
    found = ranks(
        tmp_path,
        {**alike, "name": "one", "strategy": "auto", "devices": 1},
        {**alike, "name": "two", "strategy": "ddp", "micro_batches": 2},
    )
    one, two = found["one"]["state_dict"], found["two"]["state_dict"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert (two[name] - value).abs().max() < ROUNDING, name


@pytest.mark.proof
@pytest.mark.parametrize("family", ["cut", "fastcut"])
def test_every_stage_of_zero_trains_like_ddp(family: str, tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, family, ("ddp", "zero1", "zero2", "zero3"), until=3)


# ---- afterwards -----------------------------------------------------------------------------------------------------


def test_it_translates_one_way_at_any_size() -> None:
    module, images = small().eval(), torch.rand(3, 1, 21, 34) * 2 - 1
    assert module.directions() == ("a-to-b",)
    assert module.translate(images, "a-to-b").shape == images.shape


def test_previews_show_pairs() -> None:
    module, held_out = small(), next(iter(Domains(0, 1)))
    with module.evaluating():
        previews = module.previews(held_out, seed=0)
    assert {name: (len(preview.images), preview.columns) for name, preview in previews.items()} == {
        "samples": (2 * GLOBAL_BATCH, GLOBAL_BATCH),
    }


def test_where_the_truth_is_known_the_sheet_has_it_below() -> None:
    module, held_out = small(), {**next(iter(Domains(0, 1))), "paired": True}
    with module.evaluating():
        images, columns = module.sheet(held_out)
    assert len(images) == 3 * columns
    torch.testing.assert_close(images[2 * columns :], held_out["image_b"])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution 8 is too small for a discriminator with 2 layers, which wants 12"):
        small(resolution=8)
    with pytest.raises(ValueError, match="lambda_nce is -1"):
        small(lambda_nce=-1.0)
