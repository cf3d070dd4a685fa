"""The autoencoder's networks: shapes, ranges, the reparametrised draw, and gradient checkpointing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.vae import Autoencoder, AutoencoderOptions, VAEDecoder, VAEEncoder


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("latent_dim", [1, 17])
def test_every_resolution_colour_and_latent(resolution: int, channels: int, latent_dim: int) -> None:
    torch.manual_seed(0)
    network = Autoencoder(AutoencoderOptions(4), resolution=resolution, channels=channels, latent_dim=latent_dim)
    images = torch.rand(2, channels, resolution, resolution) * 2 - 1
    decoded, mean, log_variance = network(images, torch.randn(2, latent_dim))
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1
    assert mean.shape == log_variance.shape == (2, latent_dim)
    (decoded.square().sum() + mean.sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_draw_has_the_posteriors_mean_and_deviation() -> None:
    torch.manual_seed(0)
    network = Autoencoder(AutoencoderOptions(4), resolution=32, latent_dim=3).eval()
    drawn: list[Tensor] = []
    network.decoder.register_forward_pre_hook(lambda module, inputs: drawn.append(inputs[0]))
    images = torch.rand(1, 3, 32, 32)
    _, mean, log_variance = network(images, torch.zeros(1, 3))
    torch.testing.assert_close(drawn.pop(), mean)
    noise = torch.randn(1, 3)
    network(images, noise)
    torch.testing.assert_close(drawn.pop(), mean + log_variance.exp().sqrt() * noise)


def test_a_wild_log_variance_is_bounded() -> None:
    network = VAEEncoder(AutoencoderOptions(4), resolution=32, latent_dim=2)
    network.to_posterior.bias.data = torch.tensor([0.0, 0.0, 1e4, -1e4])
    _, log_variance = network(torch.zeros(2, 3, 32, 32))
    assert log_variance.tolist() == [[20.0, -30.0]] * 2


def test_autocast_ends_in_float32() -> None:
    torch.manual_seed(0)
    network = Autoencoder(AutoencoderOptions(8), resolution=32, latent_dim=4)
    images, noise = torch.rand(3, 3, 32, 32), torch.randn(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images, noise)
    for ours, expected in zip(outputs, network(images, noise), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, atol=0.05, rtol=0.05)


def test_gradient_checkpointing_trains_the_same() -> None:
    def step(gradient_checkpointing: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = Autoencoder(AutoencoderOptions(8, gradient_checkpointing), resolution=32, latent_dim=4)
        decoded, mean, log_variance = network(torch.rand(3, 3, 32, 32), torch.randn(3, 4))
        (decoded.square().sum() + mean.square().sum() + log_variance.square().sum()).backward()
        return [*(parameter.grad for parameter in network.parameters()), *network.buffers()]  # type: ignore[list-item]

    for ours, expected in zip(step(True), step(False), strict=True):
        assert torch.equal(ours, expected)


def test_unsupported_resolutions_are_refused() -> None:
    for network in (VAEEncoder, VAEDecoder, Autoencoder):
        with pytest.raises(ValueError, match="resolution 100 is not supported"):
            network(resolution=100)
