"""Folded networks give what the unfolded ones give in eval mode, and leave those as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules.losses.style import EPSILON
from lightning_modules.networks.dcgan import DCGANGenerator, GeneratorOptions
from lightning_modules.networks.fast_style import FastStyleNetwork, FastStyleOptions
from lightning_modules.networks.folding import folded
from lightning_modules.networks.instance_norm import ConditionalInstanceNorm, InstanceNorm
from lightning_modules.networks.vae import Autoencoder, AutoencoderOptions


def with_statistics(network: nn.Module) -> nn.Module:
    """The network in eval mode, with batch norms that do something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_dcgan_has_no_norms_and_no_spectral_norm_left(num_classes: int) -> None:
    options = GeneratorOptions(width=8, attention_resolution=8, spectral_norm=True)
    network = with_statistics(DCGANGenerator(options, latent_dim=8, resolution=32, num_classes=num_classes))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    z, labels = torch.randn(5, 8), torch.arange(5) % 3
    expected = network(z, labels)
    alone = folded(network)
    torch.testing.assert_close(alone(z, labels), expected, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in alone.modules())
    assert not any("parametrizations" in name for name in alone.state_dict())
    # The original is what it was.
    assert torch.equal(network(z, labels), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_vae_has_no_norms_left() -> None:
    network = with_statistics(Autoencoder(AutoencoderOptions(width=8), resolution=32, channels=1, latent_dim=4))
    images, noise = torch.rand(3, 1, 32, 32) * 2 - 1, torch.randn(3, 4)
    alone = folded(network)
    for expected, found in zip(network(images, noise), alone(images, noise), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in alone.modules())


@pytest.mark.parametrize("styles", [1, 3])
def test_the_variance_of_a_conditional_norm_is_bessels(styles: int) -> None:
    norm = ConditionalInstanceNorm(4, styles)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    # Few places, where the two variances differ most; and hardly any contrast, where the constant matters.
    x = torch.randn(2, 4, 3, 4) * torch.tensor([1.0, 0.1, 3e-3, 1e-3]).view(1, 4, 1, 1)
    mix = torch.softmax(torch.randn(2, styles), 1)[:, :, None, None]
    variance, mean = torch.var_mean(x.double(), (2, 3), keepdim=True, correction=1)
    weight, bias = ((mix[:, :, 0, 0] @ each)[:, :, None, None] for each in (norm.weight, norm.bias))
    expected = (x - mean) / (variance + EPSILON).sqrt() * weight + bias
    torch.testing.assert_close(norm.folded()(x, mix).double(), expected.double(), rtol=1e-4, atol=1e-5)


def test_a_plain_instance_norm_is_the_same() -> None:
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(InstanceNorm().folded()(x), InstanceNorm()(x))


@pytest.mark.parametrize("kind", ["johnson", "light"])
def test_a_network_of_fast_style(kind: str) -> None:
    network = with_statistics(FastStyleNetwork(FastStyleOptions(kind), styles=2))  # type: ignore[arg-type]
    images, mix = torch.rand(1, 3, 21, 32) * 2 - 1, torch.tensor([0.3, 0.7]).view(1, 2, 1, 1)
    torch.testing.assert_close(folded(network)(images, mix), network(images, mix), rtol=1e-4, atol=1e-4)
