"""StyleGAN2's networks beside the authors' figures: noise, truncation, 16 bits, memory, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules.networks.stylegan2.discriminator import Discriminator, DiscriminatorOptions
from lightning_modules.networks.stylegan2.mapping import MappingNetwork, MappingOptions
from lightning_modules.networks.stylegan2.synthesis import Generator, SynthesisOptions

WIDTHS: dict[str, Any] = {"channel_base": 128, "channel_max": 8}


def generator(**options: Any) -> Generator:
    torch.manual_seed(0)
    mapping = MappingOptions(layers=2, w_dim=8)
    network = Generator(mapping, SynthesisOptions(**WIDTHS, **options), latent_dim=4, resolution=16, channels=1)
    for block in network.synthesis.blocks:
        for layer in block.layers:
            torch.nn.init.constant_(layer.noise_strength, 0.5)
    return network


def test_noise_is_given_or_constant_or_none() -> None:
    network, z = generator(), torch.randn(2, 4)
    synthesis = network.synthesis
    assert (synthesis.num_ws, synthesis.noise_size) == (6, 16 + 2 * 64 + 2 * 256)
    buffers = [layer.noise_constant.flatten() for block in synthesis.blocks for layer in block.layers]
    given = network(z, noise=torch.cat(buffers).expand(2, -1))
    torch.testing.assert_close(given, network(z, noise="constant"))
    assert not torch.allclose(given, network(z, noise="none"), atol=1e-2)
    torch.testing.assert_close(network(z, noise=torch.zeros(2, synthesis.noise_size)), network(z, noise="none"))


def test_truncation_moves_the_first_layers_to_the_mean() -> None:
    network, z = generator(), torch.randn(2, 4)
    network.mapping.w_avg.fill_(0.25)
    ws = network.broadcast(network.mapping(z))
    assert network.mapping.truncated(ws, 1.0) is ws
    assert torch.equal(network.mapping.truncated(ws, 0.0), torch.full_like(ws, 0.25))
    half = network.mapping.truncated(ws, 0.5, cutoff=2)
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + 0.25) / 2)
    assert torch.equal(half[:, 2:], ws[:, 2:])


def test_the_mean_of_w_follows_slowly() -> None:
    mapping = MappingNetwork(MappingOptions(layers=1, w_dim=4, w_avg_beta=0.75), latent_dim=4)
    mapping.follow(torch.full((4,), 8.0))
    mapping.follow(torch.full((4,), 4.0))
    assert mapping.w_avg.tolist() == [2.5] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_high_resolutions_run_in_16_bits_and_the_rest_does_not(dtype: torch.dtype) -> None:
    network, z = generator(half_resolutions=1), torch.randn(4, 4)
    critic = Discriminator(DiscriminatorOptions(**WIDTHS, half_resolutions=1), resolution=16, channels=1)
    seen: dict[str, torch.dtype] = {}
    for name, block in [*network.synthesis.blocks.named_children(), *critic.blocks.named_children()]:
        kind = type(block).__name__
        block.register_forward_hook(
            lambda module, given, found, key=f"{kind} {name}": seen.__setitem__(
                key, (found[0] if isinstance(found, tuple) else found).dtype
            )
        )
    exact = network(z)
    logits = critic(exact)
    with torch.autocast("cpu", dtype):
        images = network(z)
        assert images.dtype == torch.float32
        torch.testing.assert_close(images, exact, rtol=0.05, atol=0.05)
        rough = critic(exact)
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough, logits, rtol=0.05, atol=0.05)
    assert seen == {
        "SynthesisBlock 0": torch.float32,
        "SynthesisBlock 1": torch.float32,
        "SynthesisBlock 2": dtype,
        "DiscriminatorBlock 0": dtype,
        "DiscriminatorBlock 1": torch.float32,
    }


def test_weights_stored_in_16_bits() -> None:
    network = generator().bfloat16()
    critic = Discriminator(DiscriminatorOptions(**WIDTHS), resolution=16, channels=1, num_classes=2).bfloat16()
    images = network(torch.randn(4, 4))
    logits = critic(images, torch.tensor([0, 1, 0, 1]))
    assert images.dtype == logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.synthesis.parameters())


def test_recomputed_activations_change_nothing() -> None:
    z = torch.randn(4, 4)
    found = []
    for on in (False, True):
        network = generator(gradient_checkpointing=on)
        critic = Discriminator(DiscriminatorOptions(**WIDTHS, gradient_checkpointing=on), resolution=16, channels=1)
        critic.load_state_dict({name: torch.ones_like(value) for name, value in critic.state_dict().items()})
        noise = torch.ones(4, network.synthesis.noise_size)
        critic(network(z, noise=noise)).sum().backward()
        found.append([*network.parameters(), *critic.parameters()])
    for one, other in zip(*found, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution is 24; StyleGAN2's networks need a power of two"):
        Discriminator(resolution=24)
    with pytest.raises(ValueError, match="needs labels"):
        MappingNetwork(MappingOptions(layers=1, w_dim=4), latent_dim=4, num_classes=3)(torch.randn(2, 4))
