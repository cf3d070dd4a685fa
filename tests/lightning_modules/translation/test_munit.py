"""MUNIT: losses and gradients of the authors' code, styles, resuming, ranks and micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gesso.cli.main import main
from gesso.common.pixels import to_uint8
from launch.checkpoints.export import export
from lightning_modules.networks.multiscale_discriminator import MultiscaleDiscriminatorOptions
from lightning_modules.networks.munit import MunitAutoencoder, MunitOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.translation.cyclegan import CycleGAN
from lightning_modules.translation.munit import MUNIT
from tests.formulas import gradient_sums, set_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.translation.domains import check_same, train

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "munit.npz"
SIDE, COUNT = 24, 2
ORIGIN = {"images_seen": 0, "weights": "raw"}
NETWORKS = ("autoencoder_a", "autoencoder_b", "discriminator_a", "discriminator_b")
#: Our losses to the authors'.
LOSSES = {"adversarial": "adv", "image": "recon_x", "style": "recon_s", "content": "recon_c", "cycle": "cycrecon_x"}


def style(number: int) -> Tensor:
    """The drawn styles number 1, 2 ... of an update."""
    return waves(COUNT, 3, number=10 + number)


def pictures() -> tuple[Tensor, Tensor]:
    return waves(COUNT, 3, SIDE, SIDE, number=3), waves(COUNT, 3, SIDE, SIDE, number=4)


class Given(MUNIT):
    """Takes the styles that the authors' code was given."""

    drawn = 0

    def randn(self, count: int, *shape: int) -> Tensor:
        self.drawn += 1
        return style(self.drawn)


def munit() -> Given:
    module = Given(
        resolution=SIDE,
        lambda_cycle=2.0,
        autoencoder=MunitOptions(4, blocks=2, style_dim=3, hidden=12),
        discriminator=MultiscaleDiscriminatorOptions(4, layers=2),
    ).double()
    for number, name in enumerate(NETWORKS):
        set_weights_(getattr(module, name), scale=0.2 + 0.02 * number)
    return module


def small(**options: Any) -> MUNIT:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "resolution": 16,
        "channels": 1,
        "autoencoder": MunitOptions(4, blocks=1, style_dim=3, hidden=8),
        "discriminator": MultiscaleDiscriminatorOptions(4, layers=2),
    }
    return MUNIT(**(chosen | options))


def test_losses_and_gradients_are_those_of_the_authors() -> None:
    module, (a, b) = munit(), pictures()
    batch = {"image": a, "image_b": b}
    with np.load(REFERENCE) as reference:
        of_d = module.discriminator_losses(batch)["loss"]
        of_d.backward()
        assert of_d.item() == pytest.approx(reference["losses/D"].item(), rel=1e-10)
        module.drawn = 0
        for name in NETWORKS[2:]:
            expected = torch.from_numpy(reference[f"sums/{name}"])
            assert (gradient_sums(getattr(module, name)) - expected).abs().max() <= 1e-10 * expected.abs().max(), name
            getattr(module, name).requires_grad_(False)
        losses = module.autoencoder_losses(batch)
        losses["loss"].backward()
        assert losses["loss"].item() == pytest.approx(reference["losses/G"].item(), rel=1e-10)
        for ours, theirs in LOSSES.items():
            for domain in "ab":
                expected = reference[f"losses/{theirs}_{domain}"].item()
                assert losses[f"{ours}_{domain}"].item() == pytest.approx(expected, rel=1e-10), ours
        for name in NETWORKS[:2]:
            expected = torch.from_numpy(reference[f"sums/{name}"])
            assert (gradient_sums(getattr(module, name)) - expected).abs().max() <= 1e-10 * expected.abs().max(), name
        with torch.no_grad():
            fake = module.translate_in_style(a, "a-to-b", style(2))
        np.testing.assert_allclose(fake.numpy(), reference["fake"], rtol=0, atol=1e-10)
        found = module.style_of(a, "b-to-a").detach().numpy()
        np.testing.assert_allclose(found, reference["style"], rtol=1e-10)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        module = MUNIT()
    sizes = {name: sum(p.numel() for p in getattr(module, name).parameters()) for name in NETWORKS}
    assert sizes["autoencoder_a"] == sizes["autoencoder_b"] == 15_026_187
    assert sizes["discriminator_a"] == 8_271_171


def test_an_instance_norm_takes_the_style_away() -> None:
    """A content does not depend on brightness and contrast; where pixels are clamped it would."""
    network = MunitAutoencoder(MunitOptions(4, blocks=1, style_dim=3, hidden=8), channels=1).double()
    images = waves(2, 1, 16, 16)
    content, own = network.encode(images)
    brighter, other = network.encode(0.5 * images + 0.2)
    torch.testing.assert_close(brighter, content, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(own, other, rtol=1e-2)


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    whole = train(small(lambda_cycle=1.0), tmp_path / "whole", 0, 4)
    train(small(lambda_cycle=1.0), tmp_path / "half", 0, 2)
    module = small(lambda_cycle=1.0)
    set_weights_(module)
    check_same(whole, train(module, tmp_path / "again", 2, 4, resume=tmp_path / "half" / "step2.ckpt"))


@pytest.mark.parametrize("other", ["micro_batches", "checkpointing"])
def test_micro_batches_and_checkpointing_train_like_the_whole(other: str, tmp_path: Path) -> None:
    one = train(small(), tmp_path / "one", 0, 3)["state_dict"]
    checkpointing = {"autoencoder": MunitOptions(4, blocks=1, style_dim=3, hidden=8, gradient_checkpointing=True)}
    module = small(micro_batches=2) if other == "micro_batches" else small(**checkpointing)
    two = train(module, tmp_path / "two", 0, 3)["state_dict"]
    for name, value in one.items():
        # A step is of 1e-4. Biases that a norm takes out again have gradients of rounding alone.
        assert (two[name] - value).abs().max() < (4e-4 if "bias" in name else 2e-5), name


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    """In float64: in float32 Adam makes whole steps of rounding errors, where a gradient is 0, as of biases here."""
    alike: dict[str, Any] = {"family": "munit", "until": 3, "precision": "64-true"}
    jobs = ({**alike, "name": "one", "strategy": "auto", "devices": 1}, {**alike, "name": "two", "strategy": "ddp"})
    run_ranks("tests.launch.strategies.rank_program", tmp_path, jobs, ranks=2)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True)["state_dict"] for name in ("one", "two"))
    for name, value in one.items():
        assert (two[name] - value).abs().max() < 2e-6, name


@pytest.mark.proof
def test_every_stage_of_zero_trains_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "munit", ("ddp", "zero1", "zero2", "zero3"), until=3)


def test_pictures_are_translated_in_several_styles_and_in_one_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "munit.safetensors")
    export(small(), Path(run), origin=ORIGIN)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many").mkdir()
    for number, image in enumerate(waves(3, 17, 22)):
        pixels = (image * 100 + 128).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "many" / f"{number}.png")
    one = str(tmp_path / "many" / "0.png")
    assert main(["translate", run, one, "--styles", "3", "--seed", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    made = [np.asarray(Image.open(tmp_path / "many" / f"0-translated-{number}.png")) for number in (1, 2, 3)]
    assert {picture.shape for picture in made} == {(17, 22)}
    assert np.abs(made[0].astype(int) - made[1]).max() > 0
    assert main(["translate", run, one, "--styles", "3", "--seed", "5", "--out", "again.png"]) == 0
    assert np.array_equal(np.asarray(Image.open("again-2.png")), made[1])
    # A style has a number: it is the same one however many there are.
    assert main(["translate", run, one, "--styles", "2", "--seed", "5", "--out", "fewer.png"]) == 0
    assert np.array_equal(np.asarray(Image.open("fewer-2.png")), made[1])
    capsys.readouterr()
    assert main(["translate", run, one, "--seed", "5"]) == 2
    assert "--seed is of --styles" in capsys.readouterr().err
    assert main(["translate", run, one, "--size", "2"]) == 2
    assert "the autoencoder wants pictures of 8 pixels or more, not 4 x 4" in capsys.readouterr().err
    Image.new("L", (15, 40)).save("small.png")
    assert main(["translate", run, one, "--style", "small.png"]) == 2
    assert "the autoencoder wants pictures of 16 pixels or more, not 15 x 40" in capsys.readouterr().err
    assert main(["translate", run, "many", "--style", one, "--direction", "b-to-a", "--out", "styled"]) == 0
    assert len(list(Path("styled").glob("*.png"))) == 6
    assert main(["translate", run, "many", "--styles", "2", "--out", "folders"]) == 0
    assert sorted(path.name for path in Path("folders").iterdir()) == ["style-1", "style-2"]


def test_an_animation_has_one_style(tmp_path: Path) -> None:
    """Each frame's own style would flicker."""
    run = str(tmp_path / "munit.safetensors")
    module = small()
    export(module, Path(run), origin=ORIGIN)
    frames = [Image.fromarray((image * 100 + 128).numpy().astype(np.uint8)) for image in waves(3, 32, 32)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:], duration=100)
    assert main(["translate", run, str(tmp_path / "moving.png"), "--out", str(tmp_path / "made.png")]) == 0
    first = torch.from_numpy(np.array(frames[0]))[None, None] / 127.5 - 1
    style = module.translation_styles(first)
    with Image.open(tmp_path / "made.png") as made, torch.no_grad():
        for number, frame in enumerate(frames):
            made.seek(number)
            picture = torch.from_numpy(np.array(frame))[None, None] / 127.5 - 1
            wanted = to_uint8(module.eval().translate_in_style(picture, "a-to-b", style))[0, 0].numpy()
            assert np.abs(np.asarray(made).astype(int) - wanted).max() <= 1


def test_families_without_styles_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"generator": ResnetGeneratorOptions(4, 1), "pool_size": 0}
    critic = PatchDiscriminatorOptions(4, 2, "instance")
    module = CycleGAN(resolution=16, channels=1, discriminator=critic, **options)
    run = str(tmp_path / "cyclegan.safetensors")
    export(module, Path(run), origin=ORIGIN)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    for words in (["--styles", "2"], ["--style", str(tmp_path / "a.png")]):
        assert main(["translate", run, str(tmp_path / "a.png"), *words]) != 0
        assert "a CycleGAN has one translation of each picture: it takes no styles" in capsys.readouterr().err


def test_a_picture_has_its_own_style_and_any_other() -> None:
    module = small().eval()
    images = waves(3, 1, 16, 16).float()
    with torch.no_grad():
        alone = torch.cat([module.translate(image[None], "a-to-b") for image in images])
        torch.testing.assert_close(module.translate(images, "a-to-b"), alone)
        styles = module.draw_styles(3, seed=1)
        assert torch.equal(styles, module.draw_styles(3, seed=1))
        made = module.translate_in_style(images[:1].expand(3, -1, -1, -1), "a-to-b", styles)
        assert (made[0] - made[1]).abs().max() > 1e-3
        # Sides that cannot be halved so often.
        odd = module.translate(waves(1, 1, 18, 21).float(), "b-to-a")
        assert odd.shape == (1, 1, 18, 21)
    preview = module.previews({"image": images, "image_b": images}, seed=0)["styles"]
    assert preview.images.shape == (6 * 8, 1, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 18}, "resolution is 18; it must be a multiple of 4"),
        ({"resolution": 8}, "resolution 8 is too small for a discriminator with 2 layers at 3 sizes"),
        ({"lambda_c": -1.0}, "lambda_c"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
