"""StarGAN v2: networks, losses and gradients of the authors' code; styles, domains, resuming, ranks, micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.building.build import build
from datamodules.building.options import BuildOptions
from datamodules.shards import ShardData
from gesso.cli.main import main
from launch.checkpoints.export import export
from launch.evaluation.driver import compared_with
from lightning_modules.metrics.evaluator import EvaluationOptions
from lightning_modules.networks.stargan import StarGANOptions
from lightning_modules.translation.stargan import StarGANv2, second_references
from tests.formulas import gradient_sums, set_he_weights_, set_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.lightning_modules.translation.domains import Domains, check_same, train

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "stargan.npz"
NETWORKS = ("generator", "mapping", "style_encoder", "discriminator")
LABELS = torch.tensor([0, 1, 1, 2, 1, 0])
COUNT, SIDE, LATENT = len(LABELS), 32, 4
#: Of each update: our losses to the authors', and networks that learn.
UPDATES = {
    "d": ({"real": "real", "fake": "fake", "r1": "reg"}, NETWORKS[3:]),
    "d_ref": ({"reference_real": "real", "reference_fake": "fake", "reference_r1": "reg"}, NETWORKS[3:]),
    "g": ({"adversarial": "adv", "style": "sty", "diversity": "ds", "cycle": "cyc"}, NETWORKS[:3]),
    "g_ref": ({"adversarial": "adv", "style": "sty", "diversity": "ds", "cycle": "cyc"}, NETWORKS[:1]),
}
ORIGIN = {"images_seen": 0, "weights": "raw"}


class Given(StarGANv2):
    """Takes the latents that the authors' code was given."""

    drawn = 0

    def randn(self, count: int, *shape: int) -> Tensor:
        self.drawn += 1
        return waves(count, *shape, number=10 + self.drawn).to(torch.get_default_dtype())


class Labelled(Domains):
    """One set of three classes, none of which has but one picture in a batch, or is missing."""

    shape = (6, 1, 16, 16)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in super().__iter__():
            labels = torch.tensor([0, 1, 1, 2, 0, 2])
            yield {"image": batch["image"], "label": labels, "position": batch["position"]}


def small(**options: Any) -> StarGANv2:
    torch.manual_seed(0)
    network = StarGANOptions(4, 8, 1, 3, 5, 8, gradient_checkpointing=options.pop("checkpointing", False))
    chosen: dict[str, Any] = {"resolution": 16, "channels": 1, "num_classes": 3, "lambda_ds": 0.5, "network": network}
    return StarGANv2(**(chosen | options))


def test_networks_losses_and_gradients_are_those_of_the_authors(dtype: torch.dtype) -> None:
    """One update after the other, each of the same weights."""
    module = Given(
        resolution=SIDE,
        num_classes=3,
        lambda_sty=1.5,
        lambda_ds=0.7,
        lambda_cyc=2.0,
        # Their layers from z to styles have 512 units whatever the options.
        network=StarGANOptions(4, 6, 1, LATENT, 5, 512),
    )
    for name in NETWORKS:
        set_he_weights_(getattr(module, name).parameters())
    images = waves(COUNT, 3, SIDE, SIDE, number=3).to(dtype)
    batch = {"image": images, "label": LABELS}
    near: dict[str, float] = {"rel": 1e-10} if dtype == torch.float64 else {"rel": 2e-5}
    losses = {
        "d": module.discriminator_losses,
        "d_ref": module.reference_discriminator_losses,
        "g": module.generator_losses,
        "g_ref": module.reference_generator_losses,
    }
    with np.load(REFERENCE) as reference:
        with torch.no_grad():
            styles = module._drawn(LABELS.roll(-1))
            made = {
                "styles": styles,
                "encoded": module.style_encoder(images, LABELS),
                "fake": module.generator(images, styles)[:2],
                "logits": module.discriminator(images, LABELS),
            }
        for name, value in made.items():
            expected = reference[name]
            np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=near["rel"] * np.abs(expected).max())
        for update, (names, learning) in UPDATES.items():
            module.drawn = 0
            module.zero_grad(set_to_none=True)
            found = losses[update](batch)
            found["loss"].backward()
            for ours, theirs in names.items():
                # R1 is halved by its weight, theirs by itself.
                factor = 0.5 if theirs == "reg" else 1.0
                assert factor * found[ours].item() == pytest.approx(reference[f"{update}/{theirs}"].item(), **near), (
                    ours
                )
            assert found["loss"].item() == pytest.approx(reference[f"{update}/loss"].item(), **near)
            for name in learning:
                sums = torch.from_numpy(reference[f"{update}/sums/{name if name != 'mapping' else 'mapping_network'}"])
                apart = (gradient_sums(getattr(module, name)) - sums).abs().max() / sums.abs().max()
                assert apart < (1e-10 if dtype == torch.float64 else 1e-4), (update, name)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        module = StarGANv2(num_classes=3)
    sizes = [sum(parameter.numel() for parameter in getattr(module, name).parameters()) for name in NETWORKS]
    assert sizes == [33_892_995, 3_259_072, 20_949_760, 20_852_803]


def test_references_are_two_pictures_of_one_domain() -> None:
    # Row i + 1, then the next of its label after it, around the end.
    assert second_references(LABELS).tolist() == [2, 4, 3, 1, 0, 5]


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    whole = train(small(), tmp_path / "whole", 0, 4, data=Labelled)
    train(small(), tmp_path / "half", 0, 2, data=Labelled)
    module = small()
    set_weights_(module)
    again = train(module, tmp_path / "again", 2, 4, resume=tmp_path / "half" / "step2.ckpt", data=Labelled)
    check_same(whole, again)


def test_recomputed_blocks_train_alike(tmp_path: Path) -> None:
    one = train(small(), tmp_path / "one", 0, 3, data=Labelled)["state_dict"]
    two = train(small(checkpointing=True), tmp_path / "two", 0, 3, data=Labelled)["state_dict"]
    for name, value in one.items():
        # A step is of 1e-4. Biases that a norm takes out again have gradients of rounding alone.
        assert (two[name] - value).abs().max() < (4e-4 if "bias" in name else 2e-5), name


def test_diversity_counts_less_and_less() -> None:
    module = StarGANv2(resolution=16, num_classes=2, network=StarGANOptions(4, 8, 1, 3, 5, 8))
    batch = {"image": waves(4, 3, 16, 16).float(), "label": torch.tensor([0, 1, 1, 0])}
    found = []
    for seen in (0, 400_000, 800_000):
        module.images_seen = seen
        losses = module.reference_generator_losses(batch)
        rest = losses["adversarial"] + losses["style"] + losses["cycle"]
        found.append(((rest - losses["loss"]) / losses["diversity"]).item())
    assert found == pytest.approx([1.0, 0.5, 0.0], abs=1e-4)


@pytest.mark.proof
def test_strategies_train_alike_on_two_ranks(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "stargan", ("ddp", "zero2", "zero3"), until=2)


def test_a_domain_has_styles_of_its_own() -> None:
    module = small().eval()
    images = waves(3, 1, 16, 16).float()
    with torch.no_grad():
        alone = torch.cat([module.translate(image[None], "to-1") for image in images])
        torch.testing.assert_close(module.translate(images, "to-1"), alone)
        drawn = [module.draw_styles(3, seed=1, direction=f"to-{domain}") for domain in range(3)]
        assert torch.equal(drawn[0], module.draw_styles(3, seed=1))
        assert torch.equal(drawn[1][:2], module.draw_styles(2, seed=1, direction="to-1"))
        assert (drawn[0] - drawn[1]).abs().max() > 1e-3
        own = [module.style_of(images, f"to-{domain}") for domain in range(3)]
        assert (own[0] - own[1]).abs().max() > 1e-3
        # Sides that cannot be halved so often, and a picture of another size for its style.
        assert module.translate(waves(1, 1, 17, 3).float(), "to-2").shape == (1, 1, 17, 3)
        assert module.style_of(waves(1, 1, 40, 20).float(), "to-2").shape == (1, 5)
    shown = module.previews({"image": images, "label": torch.tensor([0, 2, 1])}, seed=0)
    assert shown["samples"].images.shape == (4 * 4, 1, 16, 16)
    assert shown["styles"].images.shape == (3 * 2 * 7, 1, 16, 16)


def test_it_is_compared_with_the_pictures_of_the_domain(tmp_path: Path) -> None:
    """With those of its class alone, of any number."""
    for number in range(24):
        folder = tmp_path / "pictures" / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 60 * (number % 3) + number).save(folder / f"{number}.png")
    build(str(tmp_path / "pictures"), tmp_path / "set", BuildOptions(size=16), workers=1, progress=False)
    data = ShardData(str(tmp_path / "set"), 4, workers=0)
    count = int((data.manifest.index("train")["label"] == 2).sum())
    evaluator = small().eval().evaluator(EvaluationOptions(("kid",), "mobilenet_v2", direction="to-2"))
    assert evaluator is not None
    (compared,) = compared_with(evaluator, data)
    assert (compared["images"], compared["label"]) == (count, 2)
    for limit in (None, 3):
        (batch,) = data.reference_batches("train", rank=0, world_size=1, batch_size=64, limit=limit, label=2)
        assert len(batch) == (limit or count)
        # The others are darker than 100.
        assert ((batch >= 120) & (batch < 144)).all()
        assert len(batch.flatten(1)[:, 0].unique()) == len(batch)


def test_the_command_line_knows_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "stargan.safetensors")
    export(small(), Path(run), origin=ORIGIN)
    picture = str(tmp_path / "0.png")
    Image.fromarray((waves(17, 22) * 100 + 128).numpy().astype(np.uint8)).save(picture)
    made = {}
    for words in (["--direction", "to-2"], ["--direction", "to-1"], ["--direction", "to-1", "--style", picture]):
        out = str(tmp_path / "out.png")
        assert main(["translate", run, picture, *words, "--out", out]) == 0, capsys.readouterr().err
        made[" ".join(words[:3])] = np.asarray(Image.open(out)).astype(int)
        Path(out).unlink()
    assert {value.shape for value in made.values()} == {(17, 22)}
    values = list(made.values())
    assert all(np.abs(one - other).max() > 0 for one, other in ((values[0], values[1]), (values[1], values[2])))
    assert main(["translate", run, picture, "--direction", "to-3"]) == 2
    assert "direction to-3: a StarGANv2 translates to-0 and to-1 and to-2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes is 1; a StarGANv2 needs 2 domains or more"),
        ({"resolution": 24}, "resolution is 24; it must be a power of two, 4 or more"),
        ({"lambda_ds": -1.0}, "lambda_ds"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
