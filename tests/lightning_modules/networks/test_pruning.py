"""Pruned networks: a planted narrow one is found again in a wide one, and what cannot be pruned is named."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.adain import Decoder, DecoderOptions
from lightning_modules.networks.dcgan import DCGANGenerator, GeneratorOptions
from lightning_modules.networks.pruning import ChannelGroup, pruned_state


def planted(narrow: nn.Module, wide: nn.Module, groups: list[ChannelGroup]) -> dict[str, Tensor]:
    """The wide network with the narrow one in channels drawn at random, and next to nothing in the others."""
    state = {name: value.clone() for name, value in wide.state_dict().items()}
    inside: dict[str, dict[int, Tensor]] = {}
    for group in groups:
        sizes = [(state[name].shape[dim], narrow.state_dict()[name].shape[dim]) for name, dim in group.places.items()]
        count, left = min(sizes)
        chosen = torch.randperm(count)[:left].sort().values
        for name, dim in group.places.items():
            blocks = state[name].shape[dim] // count
            inside.setdefault(name, {})[dim] = (torch.arange(blocks)[:, None] * count + chosen).flatten()
    for name, value in narrow.state_dict().items():
        if name not in inside:
            state[name] = value.clone()
            continue
        state[name] = torch.full_like(state[name], 1e-4) if "running_var" not in name else torch.ones_like(state[name])
        index = [inside[name].get(dim, torch.arange(size)) for dim, size in enumerate(value.shape)]
        state[name][torch.meshgrid(*index, indexing="ij")] = value
    return state


def filled(network: nn.Module) -> nn.Module:
    """With weights none of which is 0, and statistics that a trained network could have."""
    for name, value in network.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
        elif value.is_floating_point():
            value.normal_()
    return network.eval()


@pytest.mark.parametrize("classes", [0, 3])
def test_a_planted_generator_is_found_again(classes: int) -> None:
    torch.manual_seed(0)
    options = {"latent_dim": 5, "resolution": 32, "channels": 1, "num_classes": classes}
    narrow = filled(DCGANGenerator(GeneratorOptions(4), **options))
    wide = DCGANGenerator(GeneratorOptions(12), **options)
    groups = wide.channel_groups()
    found = DCGANGenerator(GeneratorOptions(4), **options).eval()
    found.load_state_dict(pruned_state(planted(narrow, wide, groups), found.state_dict(), groups))
    z, labels = torch.randn(6, 5), torch.arange(6) % max(classes, 1)
    assert torch.equal(found(z, labels), narrow(z, labels))


def test_a_planted_decoder_is_found_again() -> None:
    torch.manual_seed(0)
    narrow, wide = filled(Decoder(DecoderOptions(32))), Decoder(DecoderOptions(64))
    groups = wide.channel_groups()
    found = Decoder(DecoderOptions(32))
    found.load_state_dict(pruned_state(planted(narrow, wide, groups), found.state_dict(), groups))
    features = torch.randn(1, 512, 3, 4)
    assert torch.equal(found(features), narrow(features))


def test_half_the_width_is_a_quarter_of_the_inner_weights() -> None:
    whole, half = Decoder(), Decoder(DecoderOptions(128))
    sizes: list[Mapping[str, Tensor]] = [whole.state_dict(), half.state_dict()]
    first, *_, last = (name for name in sizes[0] if name.endswith("weight"))
    for name, value in sizes[0].items():
        if name.endswith("weight") and name not in (first, last):
            assert value.numel() == 4 * sizes[1][name].numel()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (GeneratorOptions(8, attention_resolution=16), "attention"),
        (GeneratorOptions(8, spectral_norm=True), "parametrizations"),
    ],
)
def test_what_cannot_be_pruned_is_named(options: GeneratorOptions, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*cannot be pruned"):
        DCGANGenerator(options, resolution=32).channel_groups()


def test_networks_that_differ_in_more_than_width_are_refused() -> None:
    wide, narrow = (DCGANGenerator(GeneratorOptions(w), latent_dim=d, resolution=32) for w, d in ((8, 5), (4, 6)))
    with pytest.raises(ValueError, match=re.escape("project.weight is (256, 6) here, and (256, 5) there")):
        pruned_state(wide.state_dict(), narrow.state_dict(), wide.channel_groups())
    with pytest.raises(ValueError, match="a pruned one has fewer"):
        pruned_state(narrow.state_dict(), wide.state_dict(), wide.channel_groups())
