"""Blocks against plain layers, and options that are refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.networks.attention import check_attention_resolution
from lightning_modules.networks.blocks import DownBlock, stage_channels


@pytest.mark.parametrize(
    ("normalization", "reference"),
    [
        ("layer", lambda x: F.layer_norm(x, x.shape[1:])),
        (
            "batch",
            lambda x: (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt(),
        ),
        ("none", lambda x: x),
    ],
)
def test_down_block_is_convolution_normalisation_leaky_relu(normalization, reference) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    block = DownBlock(3, 8, normalization=normalization)
    x = torch.randn(4, 3, 8, 8)
    convolved = F.conv2d(x, block.convolution.weight, block.convolution.bias, stride=2, padding=1)
    normalised = reference(convolved)
    torch.testing.assert_close(block(x), torch.maximum(normalised, 0.2 * normalised), atol=1e-5, rtol=1e-4)


def test_stage_channels_double_to_eight_times_the_width() -> None:
    assert stage_channels(32, 16) == [16, 32, 64]
    assert stage_channels(64, 64) == [64, 128, 256, 512]
    assert stage_channels(256, 32) == [32, 64, 128, 256, 256, 256]


def test_bad_options_are_named_with_their_remedy() -> None:
    with pytest.raises(ValueError, match="resolution 48 is not supported; choose one of 32, 64, 128, 256"):
        stage_channels(48, 64)
    with pytest.raises(ValueError, match="width 0 is not positive"):
        stage_channels(64, 0)
    with pytest.raises(ValueError, match=r"attention_resolution 64 .* 64 px network; choose 0 .* one of 8, 16, 32"):
        check_attention_resolution(64, 64)
    with pytest.raises(ValueError, match="normalization 'group' is unknown; choose batch, layer or none"):
        DownBlock(3, 8, normalization="group")  # type: ignore[arg-type]
