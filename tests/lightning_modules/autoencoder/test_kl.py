"""The autoencoder of latent diffusion: its losses written out, when the discriminator begins, what measures it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from gesso.common.pixels import to_uint8
from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.catalogue import family
from lightning_modules.core.abilities import CannotDo
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.metrics.evaluator import EvaluationOptions, Pictures
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from tests.trainers import bare_trainer

SMALL: dict[str, Any] = {
    "resolution": 16,
    "latent_channels": 2,
    "perceptual_weight": 0.0,
    "discriminator_start_kimg": 0.0,
    "autoencoder": KLAutoencoderOptions(32, (1, 1), 1),
    "discriminator": PatchDiscriminatorOptions(8, 1),
    "autoencoder_optimizer": OptimizerOptions(lr=1e-3),
    "discriminator_optimizer": OptimizerOptions(lr=1e-3),
}


class Fixed(AutoencoderKL):
    """Draws the same noise for every call, without a trainer."""

    def randn(self, count: int, *shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


class Distance(nn.Module):
    """Stands for LPIPS."""

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        assert images.shape[1] == target.shape[1] == 3
        return (images - target).square().mean((1, 2, 3))


def small(kind: type[AutoencoderKL] = Fixed, **options: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return kind(**{**SMALL, **options})


def batch(count: int = 4, channels: int = 3) -> dict[str, Tensor]:
    """Smooth pictures: each of one colour and a slope."""
    generator = torch.Generator().manual_seed(1)
    colour, slope = torch.rand(2, count, channels, 1, 1, generator=generator) * 2 - 1
    return {"image": (colour + slope * torch.linspace(-1, 1, 16)).clamp(-1, 1).expand(-1, -1, 16, -1).contiguous()}


def test_losses_are_the_papers() -> None:
    module = small(perceptual_weight=0.5, kl_weight=0.01, adversarial_weight=0.3, adaptive_weight=False)
    module._lpips = Frozen(Distance())  # type: ignore[arg-type]
    images = batch()["image"]
    losses = module.autoencoder_losses(batch())
    mean, log_variance = module.encode(images)
    deviation = (log_variance / 2).exp()
    z = mean + deviation * module.randn(*mean.shape)
    decoded = module.autoencoder.decoder(z)
    posterior, prior = Normal(mean, deviation), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    kl = kl_divergence(Independent(posterior, 3), Independent(prior, 3)).mean()
    # Sums over an image, as the authors have them, by its number of pixels.
    pixels = 3 * 16 * 16
    l1, distance = (decoded - images).abs().sum() / len(images), (decoded - images).square().mean()
    fidelity = (l1 + 0.5 * pixels * distance + 0.01 * kl) / pixels
    torch.testing.assert_close(losses["loss"], fidelity - 0.3 * module.discriminator(decoded).mean())
    torch.testing.assert_close(losses["kl"], kl)
    real, fake = module.discriminator(images), module.discriminator(decoded)
    expected = (1 - real).relu().mean() + (1 + fake).relu().mean()
    torch.testing.assert_close(module.discriminator_losses(batch())["loss"], expected)


def test_the_adaptive_weight_is_the_ratio_of_the_last_layers_gradients() -> None:
    module = small(kl_weight=0.1)
    decoded, _, mean, log_variance = module.autoencoder(batch()["image"], module.randn(4, 2, 8, 8))
    weight = module.autoencoder.decoder.to_image.weight
    l1, adversarial = (decoded - batch()["image"]).abs().mean(), -module.discriminator(decoded).mean()
    norms = [torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (l1, adversarial)]
    ratio = norms[0] / (norms[1] + 1e-4)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 4
    expected = l1 + 0.5 * ratio.detach() * adversarial + 0.1 * kl / (3 * 16 * 16)
    parameters = list(module.autoencoder.parameters())
    wanted = torch.autograd.grad(expected, parameters)

    losses = module.autoencoder_losses(batch())
    torch.testing.assert_close(losses["adversarial_weight"], 0.5 * ratio)
    torch.testing.assert_close(losses["loss"], expected)
    for ours, theirs in zip(torch.autograd.grad(losses["loss"], parameters), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_pictures_are_compared_as_rgb(channels: int) -> None:
    module = small(perceptual_weight=1.0, channels=channels)
    module._lpips = Frozen(Distance())  # type: ignore[arg-type]
    assert module.held_out_losses(batch(channels=channels))["lpips"] > 0
    assert module.published_weights() == ("vgg16_lpips",)


class Loader:
    """Ready batches, as the data module hands them over."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([{**batch(), "position": 4 * (number + 1)} for number in range(self.count)])


def test_it_learns_and_the_discriminator_begins_when_it_is_to(tmp_path: Path) -> None:
    module = small(AutoencoderKL, discriminator_start_kimg=0.1)
    started = {name: tensor.clone() for name, tensor in module.discriminator.state_dict().items()}
    before = module.held_out_losses(batch())["l1"].item()
    bare_trainer(tmp_path).fit(module, Loader(25))
    assert all(torch.equal(module.discriminator.state_dict()[name], tensor) for name, tensor in started.items())
    assert not any(name.startswith("discriminator/") for name in module.pop_mean_losses())
    assert module.held_out_losses(batch())["l1"].item() < 0.75 * before
    assert module.adversarial
    bare_trainer(tmp_path).fit(module, Loader(2))
    assert not torch.equal(module.discriminator.blocks[0].convolution.weight, started["blocks.0.convolution.weight"])
    found = module.pop_mean_losses()
    assert {"autoencoder/adversarial", "autoencoder/adversarial_weight", "discriminator/loss"} <= found.keys()


def test_no_weight_no_discriminator() -> None:
    module = small(adversarial_weight=0.0)
    assert list(module.optimization()) == ["autoencoder"]
    assert not hasattr(module, "discriminator")
    assert "adversarial" not in module.autoencoder_losses(batch())


def test_held_out_losses_draw_nothing() -> None:
    module = small(AutoencoderKL)
    first, again = (module.held_out_losses(batch())["loss"] for _ in range(2))
    assert torch.equal(first, again)
    decoded = module.autoencoder.decoder(module.encode(batch()["image"])[0])
    torch.testing.assert_close(module.held_out_losses(batch())["l1"], (decoded - batch()["image"]).abs().mean())


def test_what_it_answers() -> None:
    module = small().eval()
    assert module.abilities() == {"encode", "sheet", "deployable"}
    assert family("AutoencoderKL") is AutoencoderKL
    images = batch(12)["image"]
    mean, log_variance = module.encode(images)
    assert mean.shape == log_variance.shape == (12, 2, 8, 8)
    made = module.reconstruct(images)
    assert made.shape == images.shape
    assert made.abs().max() <= 1
    shown, columns = module.previews({"image": images}, seed=0)["samples"]
    assert columns == 10
    torch.testing.assert_close(shown, torch.cat([images[:10], made[:10], images[10:], made[10:]]))
    assert module.sheet({"image": images}).columns == 8
    with pytest.raises(CannotDo, match="a VAE encodes no pictures into latents: it is no autoencoder"):
        VAE(resolution=32, latent_dim=2).encode(images)


def test_the_checksum_is_of_the_encoders_numbers_alone() -> None:
    module = small()
    checksum = module.encoder_checksum()
    module.autoencoder.decoder.to_image.bias.data += 1
    module.to(memory_format=torch.channels_last)
    assert module.encoder_checksum() == small().encoder_checksum() == checksum
    module.autoencoder.encoder.from_image.bias.data[0] += 1e-6
    assert module.encoder_checksum() != checksum


def test_what_it_is_measured_by() -> None:
    module = small().eval()
    options = EvaluationOptions(("fid", "psnr"), "mobilenet_v2")
    evaluator: Any = module.evaluator(options)
    # rFID: to the very images that were encoded.
    assert (evaluator.source, list(evaluator.references)) == (Pictures(), [Pictures()])
    assert evaluator.names == {"fid/mobilenet_v2": "min", "psnr": "max"}
    assert module.evaluator(EvaluationOptions(())) is None
    with pytest.raises(ValueError, match="is cannot be measured of a Fixed"):
        module.evaluator(EvaluationOptions(("is",)))
    evaluator = module.evaluator(EvaluationOptions(("psnr",)))
    evaluator.load({}, torch.device("cpu"))
    evaluator.reset()
    evaluator.begin({}, 4)
    images = batch()["image"]
    with torch.no_grad():
        for index in torch.arange(4).split(3):
            evaluator.update(index, {"image": images[index]})
        differences = to_uint8(images).double() - to_uint8(module.reconstruct(images)).double()
    expected = (20 * (255 / differences.square().mean((1, 2, 3)).sqrt()).log10()).mean()
    assert evaluator.compute() == {"psnr": pytest.approx(expected.item(), abs=1e-4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 15}, "resolution 15 is no multiple of 2: autoencoder.multipliers halve it 1 times"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0; the weight of a loss must be 0 or more"),
        ({"adversarial_weight": -1.0}, "adversarial_weight is -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
