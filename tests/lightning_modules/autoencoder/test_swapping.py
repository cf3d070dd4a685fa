"""The swapping autoencoder: networks, losses and gradients of the authors' code; swaps, resuming, ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gesso.cli.main import main
from launch.callbacks.ema import EMA
from launch.checkpoints.export import export
from lightning_modules.autoencoder.swapping import SwappingAutoencoder, neighbours
from lightning_modules.networks.stylegan2.discriminator import DiscriminatorOptions
from lightning_modules.networks.swapping.autoencoder import SwappingOptions
from lightning_modules.networks.swapping.cooccurrence import CooccurrenceOptions, crops
from tests.formulas import gradient_sums, set_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.lightning_modules.translation.domains import check_same
from tests.trainers import bare_trainer

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "swapping.npz"
SIDE, COUNT = 32, 4
AUTOENCODER = SwappingOptions(
    structure_channels=4, texture_dim=24, halvings=2, encoder_width=4, decoder_width=8, decoder_max=32
)
CRITIC = DiscriminatorOptions(channel_base=128, channel_max=8, minibatch_features=0)
PATCHES = CooccurrenceOptions(patch_size=8, width=16, width_max=6)
#: Our losses to the authors'.
OF_D = {
    "real": "D_real",
    "again": "D_rec",
    "swapped": "D_mix",
    "real_patches": "PatchD_real",
    "swapped_patches": "PatchD_mix",
}
OF_G = {"l1": "G_L1", "again": "G_GAN_rec", "swapped": "G_GAN_mix", "patches": "G_mix"}


class Given(SwappingAutoencoder):
    """Takes the draws that the authors' code was given."""

    drawn = 0

    def randn(self, count: int, *shape: int) -> Tensor:
        sizes = self.autoencoder.decoder.noise_sizes(8, 8)
        return torch.cat([waves(h * w, number=7) for h, w in sizes]).expand(count, -1)

    def rand(self, count: int, *shape: int) -> Tensor:
        self.drawn += 1
        return ((waves(count * shape[0], 5, number=19 + self.drawn) + 1) / 2).view(count, *shape)


class Judge(nn.Module):
    """In place of StyleGAN2's discriminator, which has a test of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(waves(2, 3, 5, 5, number=9, scale=0.3))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight, stride=3).square().mean((1, 2, 3))


def reference_module() -> Given:
    module = Given(
        resolution=SIDE, patches=3, autoencoder=AUTOENCODER, discriminator=CRITIC, cooccurrence=PATCHES
    ).double()
    module.discriminator = Judge()  # type: ignore[assignment]
    parts = (module.autoencoder.encoder, module.autoencoder.decoder, module.cooccurrence)
    for number, network in enumerate(parts):
        set_weights_(network, scale=0.7 + 0.05 * number)
    return module


def check_sums(network: nn.Module, expected: np.ndarray) -> None:
    wanted = torch.from_numpy(expected)
    assert (gradient_sums(network) - wanted).abs().max() <= 1e-10 * wanted.abs().max()


def test_codes_losses_and_gradients_are_those_of_the_authors() -> None:
    module, batch = reference_module(), {"image": waves(COUNT, 3, SIDE, SIDE, number=3)}
    encoder, decoder = module.autoencoder.encoder, module.autoencoder.decoder
    with np.load(REFERENCE) as reference:
        with torch.no_grad():
            structure, texture = encoder(batch["image"])
            swapped = module._decoded(neighbours(structure), texture)
        for name, value in (("structure", structure), ("texture", texture), ("swapped", swapped)):
            np.testing.assert_allclose(value.numpy(), reference[name], rtol=0, atol=1e-12)
        module.autoencoder.requires_grad_(False)
        losses = module.discriminator_losses(batch)
        for ours, theirs in OF_D.items():
            assert losses[ours].item() == pytest.approx(reference[f"D/{theirs}"].item(), rel=1e-10), ours
        losses["loss"].backward()
        check_sums(module.cooccurrence, reference["D/sums/cooccurrence"])
        check_sums(module.discriminator, reference["D/sums/image"])
        module.zero_grad()
        module.drawn = 0
        penalty = module.penalty_losses(batch)
        assert (5 * penalty["r1"] + 0.5 * penalty["patch_r1"]).item() == pytest.approx(reference["R1/D_R1"].item())
        (penalty["loss"] / 16).backward()
        # The authors have no gradient for the last bias, ours is 0.
        check_sums(module.cooccurrence, reference["R1/sums/cooccurrence"])
        check_sums(module.discriminator, reference["R1/sums/image"])
        module.drawn = 0
        module.requires_grad_(False)
        module.autoencoder.requires_grad_(True)
        losses = module.autoencoder_losses(batch)
        for ours, theirs in OF_G.items():
            assert losses[ours].item() == pytest.approx(reference[f"G/{theirs}"].item(), rel=1e-10), ours
        losses["loss"].backward()
        check_sums(encoder, reference["G/sums/encoder"])
        check_sums(decoder, reference["G/sums/decoder"])


def test_crops_are_cut_where_the_noise_says() -> None:
    """A quarter of a picture from its upper left corner at its own pixels, and mirrored."""
    images = waves(1, 1, 16, 16)
    noise = torch.tensor([[[0.9, 0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    found = crops(images, noise, size=9, scales=(0.5, 0.5))
    assert found.shape == (1, 2, 1, 9, 9)
    torch.testing.assert_close(found[0, 1], found[0, 0].flip(2))
    # The grid's ends are the border of the first pixel and the middle of the picture: means of four pixels between.
    inner = images[0, 0, :8, :8].unfold(0, 2, 1).unfold(1, 2, 1).mean((2, 3))
    torch.testing.assert_close(found[0, 0, 0, 1:8, 1:8], inner)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        module = SwappingAutoencoder()
    sizes = {name: sum(p.numel() for p in getattr(module, name).parameters()) for name in module.optimization()}
    assert sizes == {"autoencoder": 30_584_872 + 25_064_743, "discriminator": 28_859_521, "cooccurrence": 24_522_145}


def small(**options: Any) -> SwappingAutoencoder:
    torch.manual_seed(0)
    return SwappingAutoencoder(
        resolution=SIDE,
        channels=1,
        patches=2,
        r1_interval=2,
        autoencoder=options.pop("autoencoder", AUTOENCODER),
        discriminator=CRITIC,
        cooccurrence=CooccurrenceOptions(patch_size=8, width=16, width_max=6, hidden=16),
        **options,
    )


class Rows:
    """Batches of steps ``first`` to ``until``."""

    def __init__(self, first: int, until: int) -> None:
        self.steps = range(first, until)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            images = torch.rand(COUNT, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(step)) * 2 - 1
            yield {"image": images, "position": (step + 1) * COUNT}


def train(module: Any, folder: Path, first: int, until: int, resume: Path | None = None) -> dict[str, Any]:
    trainer = bare_trainer(folder, callbacks=[EMA(half_life_kimg=[0.02])], max_epochs=2 if resume else 1)
    trainer.fit(module, Rows(first, until), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    found: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return found


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    whole = train(small(), tmp_path / "whole", 0, 4)
    train(small(), tmp_path / "half", 0, 2)
    module = small()
    set_weights_(module)
    check_same(whole, train(module, tmp_path / "again", 2, 4, resume=tmp_path / "half" / "last.ckpt"))


def test_checkpointing_changes_nothing(tmp_path: Path) -> None:
    one = train(small(), tmp_path / "one", 0, 2)["state_dict"]
    recomputed = SwappingOptions(**{**vars(AUTOENCODER), "gradient_checkpointing": True})
    two = train(small(autoencoder=recomputed), tmp_path / "two", 0, 2)["state_dict"]
    before = small().state_dict()
    assert max((value - before[name]).abs().max().item() for name, value in one.items()) > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_a_micro_batch_of_an_odd_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a micro-batch of 1 is not even"):
        train(small(micro_batches=4), tmp_path, 0, 1)


@pytest.mark.slow
@pytest.mark.process
def test_stages_of_zero_train_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "swapping", ("ddp", "zero2", "zero3"), until=3, abs=1e-4, micro_batches=2)


def test_a_picture_is_made_in_the_texture_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "swapping.safetensors")
    export(small(), Path(run), origin={"images_seen": 0, "weights": "raw"})
    monkeypatch.chdir(tmp_path)
    for number, image in enumerate(waves(2, 37, 30)):
        Image.fromarray((image * 100 + 128).numpy().astype(np.uint8)).save(f"{number}.png")
    assert main(["translate", run, "0.png", "--style", "1.png", "--out", "swapped.png"]) == 0
    assert main(["translate", run, "0.png", "--out", "again.png"]) == 0
    swapped, again = (np.asarray(Image.open(name)).astype(int) for name in ("swapped.png", "again.png"))
    assert swapped.shape == again.shape == (37, 30)
    assert abs(swapped - again).max() > 0
    assert main(["translate", run, "0.png", "--styles", "2"]) != 0
    assert "draws no textures: --style PICTURE gives one" in capsys.readouterr().err


def test_sheets_have_a_row_for_each_structure() -> None:
    module, batch = small().eval(), {"image": waves(3, 1, SIDE, SIDE).float()}
    with torch.no_grad():
        found = module.sheet(batch)
        assert (found.images.shape, found.columns) == ((16, 1, SIDE, SIDE), 4)
        rows = found.images.unflatten(0, (4, 4))
        torch.testing.assert_close(rows[0, 1:], batch["image"])
        for number in range(3):
            torch.testing.assert_close(rows[1 + number, 1 + number], module.reconstruct(batch["image"])[number])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"autoencoder": SwappingOptions(halvings=4)}, "resolution is 32; it must be a multiple of 16"),
        ({"lambda_l1": -1.0}, "lambda_l1"),
        ({"smallest_patch": 0.5}, "0 < smallest <= largest <= 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
