"""DCGAN's networks against the paper's structure written out plainly."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.blocks import Normalization
from lightning_modules.networks.dcgan import (
    DCGANDiscriminator,
    DCGANGenerator,
    DiscriminatorOptions,
    GeneratorOptions,
)

LABELS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_every_resolution_colour_and_conditioning(resolution: int, channels: int, num_classes: int) -> None:
    torch.manual_seed(0)
    shared = {"resolution": resolution, "channels": channels, "num_classes": num_classes}
    generator = DCGANGenerator(GeneratorOptions(4, 8, spectral_norm=True), latent_dim=10, **shared)
    discriminator = DCGANDiscriminator(DiscriminatorOptions(4, 8, spectral_norm=True), **shared)
    images = generator(torch.randn(3, 10), LABELS)
    assert images.shape == (3, channels, resolution, resolution)
    assert images.abs().max() <= 1
    logits = discriminator(images, LABELS)
    assert logits.shape == (3,)
    logits.square().sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def textbook_generator(latent_dim: int, width: int) -> nn.Sequential:
    """The paper's 64 px generator as it is usually written, on z of shape [N, latent_dim, 1, 1]."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, 8 * width, 4, 1, 0, bias=False)]
    for factor in (8, 4, 2):
        layers += [nn.BatchNorm2d(factor * width), nn.ReLU()]
        layers += [nn.ConvTranspose2d(factor * width, factor * width // 2, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers)


def textbook_discriminator(width: int) -> nn.Sequential:
    """The paper's 64 px discriminator as it is usually written, but for the sigmoid."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for factor in (1, 2, 4):
        layers += [nn.Conv2d(factor * width, 2 * factor * width, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(2 * factor * width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0))


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    for mine, other in zip(source.parameters(), target.parameters(), strict=True):
        other.data.copy_(mine.data)


def test_the_generator_is_the_papers() -> None:
    torch.manual_seed(0)
    ours, theirs = DCGANGenerator(GeneratorOptions(8), latent_dim=12), textbook_generator(12, 8)
    projection = copy.deepcopy(ours.project.weight)
    ours.project.weight = nn.Parameter(projection.view(4, 4, 64, 12).permute(3, 2, 0, 1).contiguous())
    copy_in_order(ours, theirs)
    ours.project.weight = projection
    z = torch.randn(5, 12)
    torch.testing.assert_close(ours(z), theirs(z[:, :, None, None]), atol=1e-5, rtol=1e-4)
    for own, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(own, other)


def test_the_discriminator_is_the_papers() -> None:
    torch.manual_seed(0)
    ours, theirs = DCGANDiscriminator(DiscriminatorOptions(8)), textbook_discriminator(8)
    copy_in_order(ours, theirs)
    images = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images).flatten(), atol=1e-5, rtol=1e-4)


def test_weights_start_as_the_papers() -> None:
    torch.manual_seed(0)
    for network in (DCGANGenerator(num_classes=4), DCGANDiscriminator(num_classes=4)):
        for name, parameter in network.named_parameters():
            if parameter.numel() < 256:
                continue
            mean = 1.0 if parameter.ndim == 1 or name.endswith("scale") else 0.0
            if name.endswith(("bias", "shift")):
                assert not parameter.any(), name
            elif name.endswith("embedding.weight"):  # Glorot & Bengio 2010: uniform within sqrt(6 / (4 + 512))
                assert parameter.abs().max().item() == pytest.approx((6 / (4 + 512)) ** 0.5, rel=0.01), name
                assert parameter.std().item() == pytest.approx((2 / (4 + 512)) ** 0.5, rel=0.05), name
            else:
                assert parameter.mean().item() == pytest.approx(mean, abs=0.006), name
                assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


@pytest.mark.parametrize("autocast", [False, True])
def test_the_projection_discriminators_formula(autocast: bool) -> None:
    """Also under autocast, where the features are bfloat16 and the logit has to be better than that."""
    torch.manual_seed(0)
    network = DCGANDiscriminator(DiscriminatorOptions(8), resolution=32, num_classes=3)
    features: list[Tensor] = []
    network.blocks[-1].register_forward_hook(lambda module, inputs, output: features.append(output))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = network(torch.randn(3, 3, 32, 32), LABELS).detach()
    phi = features[0].detach().double().numpy()
    psi = np.einsum("nchw,chw->n", phi, network.to_logit.weight[0].detach().double().numpy())
    embedded = network.embedding.weight[LABELS].detach().double().numpy()  # type: ignore[union-attr]
    expected = psi + network.to_logit.bias.item() + np.einsum("nc,nchw->n", embedded, phi)  # type: ignore[union-attr]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_labels_change_the_image() -> None:
    torch.manual_seed(0)
    network = DCGANGenerator(GeneratorOptions(4), latent_dim=8, resolution=32, num_classes=3).eval()
    for name, parameter in network.named_parameters():
        parameter.data.mul_(1 if name.endswith("scale") else 10)  # in eval mode the initial weights give nearly 0
    z = torch.randn(1, 8).expand(3, 8)
    images = network(z, LABELS)
    assert not torch.allclose(images[0], images[1], atol=1e-4)
    torch.testing.assert_close(network(z[:1], LABELS[:1])[0], images[0])


def test_labels_are_required_with_classes_and_ignored_without() -> None:
    conditional = DCGANGenerator(GeneratorOptions(4), latent_dim=8, resolution=32, num_classes=3)
    critic = DCGANDiscriminator(DiscriminatorOptions(4), resolution=32, num_classes=3)
    z, images = torch.randn(3, 8), torch.randn(3, 3, 32, 32)
    for network, x in ((conditional, z), (critic, images)):
        with pytest.raises(ValueError, match="conditioned on 3 classes needs labels"):
            network(x)
    plain = DCGANGenerator(GeneratorOptions(4), latent_dim=8, resolution=32).eval()
    assert torch.equal(plain(z), plain(z, LABELS))


@pytest.mark.parametrize(("normalization", "alone"), [("batch", False), ("layer", True), ("none", True)])
def test_only_batch_norm_lets_samples_see_each_other(normalization: Normalization, alone: bool) -> None:
    torch.manual_seed(0)
    network = DCGANDiscriminator(DiscriminatorOptions(8, normalization=normalization), resolution=32)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        together, apart = network(images)[0], network(images[:1])[0]
    assert torch.allclose(together, apart, rtol=1e-3, atol=1e-6) == alone


@pytest.mark.parametrize("conditional", [False, True])
def test_autocast_ends_in_float32(conditional: bool) -> None:
    torch.manual_seed(0)
    shared = {"resolution": 32, "num_classes": 3 * conditional}
    generator = DCGANGenerator(GeneratorOptions(8, 16), latent_dim=8, **shared)
    discriminator = DCGANDiscriminator(DiscriminatorOptions(8, 16), **shared)
    z = torch.randn(3, 8)
    dtypes = set()
    for block in (*generator.blocks, *discriminator.blocks):
        block.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(z, LABELS)
        logits = discriminator(images, LABELS)
    assert dtypes == {torch.bfloat16}, "a block fell back to float32"
    assert images.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(images, generator(z, LABELS), atol=0.05, rtol=0.05)


def test_channels_last_keeps_its_format_and_the_values() -> None:
    torch.manual_seed(0)
    generator, discriminator = (
        DCGANGenerator(GeneratorOptions(8), latent_dim=8),
        DCGANDiscriminator(DiscriminatorOptions(8)),
    )
    z = torch.randn(3, 8)
    images = generator(z)
    logits = discriminator(images)
    formats = []
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)
        for block in network.blocks:
            block.register_forward_hook(
                lambda module, inputs, output: formats.append(
                    output.is_contiguous(memory_format=torch.channels_last) and not output.is_contiguous()
                )
            )
    torch.testing.assert_close(generator(z), images, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(discriminator(images), logits, atol=1e-5, rtol=1e-4)
    assert len(formats) == 7
    assert all(formats)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_gradient_checkpointing_trains_the_same(spectral_norm: bool) -> None:
    def step(gradient_checkpointing: bool) -> list[Tensor]:
        torch.manual_seed(0)
        shared = {"spectral_norm": spectral_norm, "gradient_checkpointing": gradient_checkpointing}
        generator = DCGANGenerator(GeneratorOptions(8, 8, **shared), latent_dim=8, resolution=32, num_classes=3)
        discriminator = DCGANDiscriminator(DiscriminatorOptions(8, 8, **shared), resolution=32, num_classes=3)
        fake = generator(torch.randn(3, 8), LABELS)
        real = torch.randn(3, 3, 32, 32)
        (discriminator(real, LABELS) - 2 * discriminator(fake, LABELS)).square().mean().backward()
        networks = nn.ModuleList([generator, discriminator])
        return [*(parameter.grad for parameter in networks.parameters()), *networks.buffers()]  # type: ignore[list-item]

    for ours, expected in zip(step(True), step(False), strict=True):
        assert torch.equal(ours, expected)


def test_an_attention_resolution_that_is_no_feature_map_is_refused() -> None:
    refused = pytest.raises(ValueError, match="attention_resolution 24 is no feature map of a 64 px network")
    with refused:
        DCGANGenerator(GeneratorOptions(attention_resolution=24))
    with refused:
        DCGANDiscriminator(DiscriminatorOptions(attention_resolution=24))
