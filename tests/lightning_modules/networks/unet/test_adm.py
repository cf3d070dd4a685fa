"""ADM's U-Net against EDM's code, and what the options do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.unet.adm import ADM, ADMOptions
from lightning_modules.networks.unet.blocks import ResidualBlock
from tests.lightning_modules.networks.unet.formula import RESIDUAL_BLOCK, Mapped, inputs, keys
from tests.lightning_modules.networks.unet.parity import assert_differentiates_forward, assert_equals_the_authors

OUTSIDE = {
    "embed_classes": "map_label",
    "embed_augment": "map_augment",
    "embed_in": "map_layer0",
    "embed_out": "map_layer1",
    "conv_in": "enc.16x16_conv",
    "norm_out": "out_norm",
    "conv_out": "out_conv",
}


def small(width: int = 16, **options: Any) -> ADM:
    """A network of 16 px with attention, 4 classes and augmentation labels."""
    fields: dict[str, Any] = {"blocks": 1, "attention_resolutions": (8,), "dropout": 0.0, "head_channels": width}
    torch.manual_seed(0)
    chosen = ADMOptions(width, multipliers=(1, 2), **(fields | options))
    return ADM(chosen, resolution=16, in_channels=3, out_channels=2, num_classes=4, augment_dim=9)


def mapped(network: ADM) -> Mapped:
    return Mapped(network, blocks=keys(16, 2, 1), within=RESIDUAL_BLOCK, outside=OUTSIDE, heads=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_those_of_the_authors_code(dtype: torch.dtype) -> None:
    assert_equals_the_authors("adm", mapped(small(width=64)), dtype)


def test_parameters_of_the_papers_network() -> None:
    """EDM's code for ImageNet at 64 px has as many; the paper says 296 million."""
    with torch.device("meta"):
        network = ADM(resolution=64, in_channels=3, out_channels=3, num_classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 295_899_267


def test_weights_start_as_the_authors() -> None:
    """Uniform within 1 / sqrt(fan_in), biases too; zeros at the ends of branches; N(0, 1) for classes."""
    network = small(width=32)
    block = network.encoder[2]
    assert isinstance(block, ResidualBlock)
    assert block.attention is not None
    assert network.embed_classes is not None
    assert network.embed_augment is not None
    for layer, fan_in in ((block.conv_in, 9 * 32), (block.condition, 128), (block.attention.to_qkv, 64)):
        for values in (layer.weight, layer.bias):
            assert values is not None
            assert values.abs().max().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.1)
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)
    for layer in (block.conv_out, block.attention.project, network.conv_out):
        assert layer.bias is not None
        assert not layer.weight.any()
        assert not layer.bias.any()
    assert not network.embed_augment.weight.any()
    assert network.embed_classes.weight.std().item() == pytest.approx(1, rel=0.1)
    images, noise, labels, _ = inputs(3, 16, torch.float32)
    assert not network(images, noise, labels).any()


def test_gradient_checkpointing_trains_the_same() -> None:
    def step(gradient_checkpointing: bool) -> list[Tensor]:
        network = small(dropout=0.2, gradient_checkpointing=gradient_checkpointing)
        mapped(network).fill_()
        torch.manual_seed(1)
        network(*inputs(3, 16, torch.float32)).square().sum().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    for ours, expected in zip(step(True), step(False), strict=True):
        assert torch.equal(ours, expected)


def test_forward_differentiation_is_the_difference_quotient() -> None:
    network = small().double()
    mapped(network).fill_()
    assert_differentiates_forward(network)


def test_the_label_after_the_last_is_no_class() -> None:
    network = small()
    mapped(network).fill_()
    images, noise, labels, _ = inputs(3, 16, torch.float32)
    out = network(images, noise, labels)
    assert network.embed_classes is not None
    network.embed_classes.weight.data.zero_()
    without = network(images, noise, labels)
    assert torch.equal(out[2], without[2])
    assert not torch.allclose(out[:2], without[:2], atol=1e-3)


def test_autocast_ends_in_float32_and_is_close() -> None:
    network = small()
    mapped(network).fill_()
    arguments = inputs(3, 16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(*arguments)
    out.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    exact = network(*arguments)
    assert out.dtype == torch.float32
    assert (out - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_a_width_without_whole_heads_is_refused() -> None:
    with pytest.raises(
        ValueError, match="width gives the attention at 8 px 32 channels, no multiple of head_channels 64"
    ):
        small(head_channels=64)
