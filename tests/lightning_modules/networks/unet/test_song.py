"""Song's U-Nets against EDM's code, and what the options do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.unet.blocks import ResidualBlock
from lightning_modules.networks.unet.song import Architecture, SongOptions, SongUNet
from tests.lightning_modules.networks.unet.formula import RESIDUAL_BLOCK, Mapped, inputs, keys
from tests.lightning_modules.networks.unet.parity import assert_differentiates_forward, assert_equals_the_authors

ARCHITECTURES: tuple[Architecture, ...] = ("ddpmpp", "ncsnpp")
OUTSIDE = {
    "embed_classes": "map_label",
    "embed_augment": "map_augment",
    "embed_in": "map_layer0",
    "embed_out": "map_layer1",
    "conv_in": "enc.16x16_conv",
    "frequencies": "map_noise.freqs",
    "image_branches.1": "enc.8x8_aux_residual",
    "image_branches.3": "enc.4x4_aux_residual",
    "norm_out": "dec.16x16_aux_norm",
    "conv_out": "dec.16x16_aux_conv",
}


def small(architecture: Architecture = "ddpmpp", multipliers: tuple[int, ...] = (1, 2), **options: Any) -> SongUNet:
    """A network of 16 px with attention, 4 classes and augmentation labels."""
    fields: dict[str, Any] = {"width": 16, "blocks": 1, "attention_resolutions": (8,), "dropout": 0.0} | options
    torch.manual_seed(0)
    chosen = SongOptions(architecture, multipliers=multipliers, **fields)
    return SongUNet(chosen, resolution=16, in_channels=3, out_channels=2, num_classes=4, augment_dim=9)


def fill(network: SongUNet, levels: int = 2) -> SongUNet:
    """Weights that are nowhere near zero."""
    Mapped(network, blocks=keys(16, levels, 1), within=RESIDUAL_BLOCK, outside=OUTSIDE, heads=1).fill_()
    return network


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_the_authors_code(architecture: Architecture, dtype: torch.dtype) -> None:
    multipliers = (1, 2) if architecture == "ddpmpp" else (1, 2, 2)
    network = small(architecture, multipliers)
    mapped = Mapped(network, blocks=keys(16, len(multipliers), 1), within=RESIDUAL_BLOCK, outside=OUTSIDE, heads=1)
    assert_equals_the_authors(architecture, mapped, dtype)


@pytest.mark.parametrize(
    ("architecture", "num_classes", "expected"),
    [("ddpmpp", 0, 55_733_891), ("ddpmpp", 10, 55_735_299), ("ncsnpp", 0, 56_397_827)],
)
def test_parameters_of_the_papers_networks(architecture: Architecture, num_classes: int, expected: int) -> None:
    """Counts of EDM's code; the paper says 55.7 million for DDPM++."""
    with torch.device("meta"):
        network = SongUNet(
            SongOptions(architecture),
            resolution=32,
            in_channels=3,
            out_channels=3,
            num_classes=num_classes,
            augment_dim=9,
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_weights_start_as_the_authors() -> None:
    """Glorot & Bengio's bound sqrt(6 / (fan_in + fan_out)); 1e-5 of it where branches end, sqrt(0.2) for attention."""
    network = small(width=32)
    block = network.encoder[2]
    assert isinstance(block, ResidualBlock)
    assert block.attention is not None
    bounds: list[tuple[nn.Linear | nn.Conv2d, float]] = [
        (network.conv_in, math.sqrt(6 / (9 * (3 + 32)))),
        (network.embed_in, math.sqrt(6 / (32 + 128))),
        (block.conv_in, math.sqrt(6 / (9 * (32 + 64)))),
        (block.condition, math.sqrt(6 / (128 + 64))),
        (block.conv_out, 1e-5 * math.sqrt(6 / (9 * (64 + 64)))),
        (block.attention.to_qkv, math.sqrt(0.2) * math.sqrt(6 / (64 + 192))),
        (block.attention.project, 1e-5 * math.sqrt(6 / (64 + 64))),
        (network.conv_out, 1e-5 * math.sqrt(6 / (9 * (32 + 2)))),
    ]
    for layer, bound in bounds:
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_the_fourier_features_are_drawn_once_and_saved() -> None:
    network = small("ncsnpp", width=64)
    assert network.state_dict()["frequencies"].std().item() == pytest.approx(16, rel=0.2)
    assert "frequencies" not in small().state_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_checkpointing_trains_the_same(architecture: Architecture) -> None:
    def step(gradient_checkpointing: bool) -> list[Tensor]:
        network = fill(small(architecture, dropout=0.2, gradient_checkpointing=gradient_checkpointing))
        images, noise, labels, augment = inputs(3, 16, torch.float32)
        torch.manual_seed(1)
        network(images, noise, labels, augment).square().sum().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    for ours, expected in zip(step(True), step(False), strict=True):
        assert torch.equal(ours, expected)


def test_the_label_after_the_last_is_no_class() -> None:
    """A row of zeros, and not the class before it."""
    network = fill(small().double())
    assert network.embed_classes is not None
    images, noise, _, _ = inputs(3, 16, torch.float64)
    without = network(images, noise, torch.full((3,), 4))
    with_class = network(images, noise, torch.full((3,), 3))
    assert not torch.allclose(without, with_class, atol=1e-3)
    network.embed_classes.weight.data.zero_()
    torch.testing.assert_close(network(images, noise, torch.full((3,), 3)), without)


def test_no_augmentation_label_is_one_of_zeros() -> None:
    network = fill(small())
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    assert torch.equal(network(images, noise, labels), network(images, noise, labels, torch.zeros(3, 9)))
    assert not torch.allclose(network(images, noise, labels), network(images, noise, labels, augment), atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_do_not_see_each_other(architecture: Architecture) -> None:
    network = fill(small(architecture))
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    together = network(images, noise, labels, augment)
    alone = network(images[1:2], noise[1:2], labels[1:2], augment[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_autocast_widens_embeddings_and_output_alone(architecture: Architecture) -> None:
    network = fill(small(architecture))
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    seen: dict[str, set[torch.dtype]] = {"blocks": set(), "embeddings": set()}
    for block in (*network.encoder, *network.decoder):
        block.register_forward_hook(lambda module, inputs, output: seen["blocks"].add(output.dtype))
    network.embed_out.register_forward_hook(lambda module, inputs, output: seen["embeddings"].add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = network(images, noise, labels, augment)
    assert seen == {"blocks": {torch.bfloat16}, "embeddings": {torch.float32}}
    assert out.dtype == torch.float32
    out.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
    exact = network(images, noise, labels, augment)
    assert (out - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_weights_stored_in_bfloat16_give_float32() -> None:
    network = fill(small("ncsnpp")).bfloat16()
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    out = network(images, noise, labels, augment)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_channels_last_keeps_its_format_and_the_values(architecture: Architecture) -> None:
    network = fill(small(architecture))
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    expected = network(images, noise, labels, augment)
    formats = []
    for block in (*network.encoder, *network.decoder):
        block.register_forward_hook(
            lambda module, inputs, output: formats.append(output.is_contiguous(memory_format=torch.channels_last))
        )
    network.to(memory_format=torch.channels_last)
    out = network(images.to(memory_format=torch.channels_last), noise, labels, augment)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    assert all(formats)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_differentiation_is_the_difference_quotient(architecture: Architecture) -> None:
    assert_differentiates_forward(fill(small(architecture).double()))


def test_wrong_options_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match="3 multipliers halve the side 2 times, which 14 px does not allow; choose"):
        SongUNet(SongOptions(attention_resolutions=()), resolution=14, in_channels=3, out_channels=3)
    with pytest.raises(ValueError, match="attention_resolutions holds 12, which is no level of a 32 px network"):
        SongUNet(SongOptions(attention_resolutions=(12,)), resolution=32, in_channels=3, out_channels=3)
    with pytest.raises(ValueError, match="multipliers is empty"):
        SongUNet(SongOptions(multipliers=()), resolution=32, in_channels=3, out_channels=3)
    with pytest.raises(ValueError, match="width gives a block 150 channels, which group norm cannot share"):
        SongUNet(SongOptions(width=150), resolution=32, in_channels=3, out_channels=3)
    with pytest.raises(ValueError, match="architecture 'unet' is unknown; choose one of ddpmpp, ncsnpp"):
        SongUNet(SongOptions("unet"), resolution=32, in_channels=3, out_channels=3)  # type: ignore[arg-type]


def test_conditions_that_are_missing_or_have_no_room() -> None:
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    with pytest.raises(ValueError, match="conditioned on 4 classes needs labels"):
        small()(images, noise)
    options = SongOptions(width=16, multipliers=(1,), blocks=1, attention_resolutions=())
    plain = SongUNet(options, resolution=16, in_channels=3, out_channels=3).eval()
    assert torch.equal(plain(images, noise), plain(images, noise, labels))
    with pytest.raises(ValueError, match="without augment_dim got an augmentation label"):
        plain(images, noise, augment=augment)


def test_a_network_starts_near_the_sum_of_its_skips() -> None:
    """The last convolution starts near zero, so the output does: EDM's loss starts at 1."""
    network = small()
    images, noise, labels, augment = inputs(3, 16, torch.float32)
    assert network(images, noise, labels, augment).abs().max() < 1e-3
    assert F.mse_loss(network(images, noise, labels), torch.zeros(3, 2, 16, 16)) < 1e-6
