"""Latent diffusion's autoencoder against its authors' code (CompVis/latent-diffusion)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.networks.autoencoder_kl import KLAutoencoder, KLAutoencoderOptions
from tests.formulas import gradient_sums, set_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "autoencoder_kl.npz"
SMALL = KLAutoencoderOptions(width=32, multipliers=(1, 2), blocks=1)


def small(options: KLAutoencoderOptions = SMALL) -> KLAutoencoder:
    network = KLAutoencoder(options, latent_channels=2)
    set_weights_(network, scale=0.3)
    return network


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_outputs_and_gradients_are_those_of_the_authors(dtype: torch.dtype, tolerance: float) -> None:
    network = small().to(dtype)
    set_weights_(network, scale=0.3)
    x = waves(2, 3, 16, 16, number=1).to(dtype).requires_grad_()
    output, _, mean, log_variance = network(x, waves(2, 2, 8, 8, number=5).to(dtype))
    parts = {"output": output, "mean": mean, "log_variance": log_variance}
    sum((value * waves(*value.shape, number=number)).sum() for number, value in enumerate(parts.values(), 2)).backward()
    assert x.grad is not None
    with np.load(REFERENCE) as reference:
        for key, ours in {**parts, "gradient": x.grad, "sums": gradient_sums(network)}.items():
            expected = torch.from_numpy(reference[f"kl/{key}"])
            assert (ours.detach().double() - expected).abs().max() <= tolerance * expected.abs().max(), key


@pytest.mark.parametrize(
    ("multipliers", "latent_channels", "parameters"), [((1, 2, 4), 3, 55_312_063), ((1, 2, 4, 4), 4, 83_653_863)]
)
def test_the_published_models_sizes(multipliers: tuple[int, ...], latent_channels: int, parameters: int) -> None:
    with torch.device("meta"):
        network = KLAutoencoder(KLAutoencoderOptions(multipliers=multipliers), latent_channels=latent_channels)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("multipliers", "factor"), [((1,), 1), ((1, 1, 2), 4), ((1, 1, 1, 1), 8)])
def test_pictures_of_any_shape_come_back_in_it(multipliers: tuple[int, ...], factor: int) -> None:
    options = KLAutoencoderOptions(32, multipliers, 1)
    network = KLAutoencoder(options, channels=1, latent_channels=3)
    latents = network.encoder(torch.zeros(1, 1, 16, 24))[0]
    assert options.factor == network.factor == factor
    assert latents.shape == (1, 3, 16 // factor, 24 // factor)
    assert network.decoder(latents).shape == (1, 1, 16, 24)


def test_a_wild_log_variance_is_bounded() -> None:
    network = small()
    network.encoder.to_posterior.weight.data.zero_()
    network.encoder.to_posterior.bias.data = torch.tensor([0.0, 0.0, 1e4, -1e4])
    _, log_variance = network.encoder(torch.zeros(1, 3, 4, 4))
    assert log_variance[0, :, 0, 0].tolist() == [20.0, -30.0]


def test_gradient_checkpointing_trains_the_same() -> None:
    def gradients(gradient_checkpointing: bool) -> list[Tensor]:
        network = small(KLAutoencoderOptions(32, (1, 2), 1, gradient_checkpointing))
        output, _, mean, log_variance = network(waves(2, 3, 8, 8).float(), waves(2, 2, 4, 4).float())
        (output.square().sum() + mean.sum() + log_variance.sum()).backward()
        return [parameter.grad for parameter in network.parameters()]  # type: ignore[misc]

    for ours, expected in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, expected)


def test_autocast_ends_in_float32() -> None:
    network = small()
    images, noise = waves(2, 3, 16, 16).float(), waves(2, 2, 8, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        output, _, *posterior = network(images, noise)
    exact, _, *exact_posterior = network(images, noise)
    for ours, expected in zip([output, *posterior], [exact, *exact_posterior], strict=True):
        assert ours.dtype == torch.float32
        assert (ours - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (KLAutoencoderOptions(width=48), "width 48 is no multiple of 32"),
        (KLAutoencoderOptions(multipliers=()), "multipliers are empty"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: KLAutoencoderOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLAutoencoder(options)


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="images of 16 x 15 pixels cannot be encoded: sides are multiples of 2"):
        small().encoder(torch.zeros(1, 3, 15, 16))
