"""StyTr2's network against its authors' code (diyiiyiii/StyTR-2), and what must not change its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.networks.stytr2 import StyTr2Network, StyTr2Options, _enlarged, _pooled
from tests.formulas import gradient_sums, set_balanced_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "stytr2.npz"
SMALL = StyTr2Options(width=32, heads=2, encoder_layers=2, transfer_layers=2)
#: Options, side in pixels, and every how many pixels the outputs and gradients are kept.
CASES = {
    "small": (SMALL, 64, 2, 4),
    # More tokens a side than the map of positions has.
    "paper": (StyTr2Options(width=64), 160, 8, 8),
}


def small(options: StyTr2Options = SMALL) -> StyTr2Network:
    network = StyTr2Network(options).double().eval()
    set_balanced_weights_(network)
    return network


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_authors(name: str, dtype: torch.dtype, tolerance: float) -> None:
    options, side, every, coarse = CASES[name]
    network = small(options).to(dtype)
    content, style = (waves(2, 3, side, side, number=number).to(dtype).requires_grad_() for number in (1, 2))
    output = network(content, style)
    (output * waves(*output.shape, number=3)).sum().backward()
    assert content.grad is not None
    assert style.grad is not None
    gradient = torch.stack([content.grad, style.grad])[..., ::coarse, ::coarse]
    found = {"output": output.detach()[..., ::every, ::every]}
    # Of the larger picture's ReLUs there are some so near to 0 that rounding to float32 turns them over.
    if name == "small" or dtype == torch.float64:
        found |= {"gradient": gradient, "sums": gradient_sums(network)}
    with np.load(REFERENCE) as reference:
        for key, ours in found.items():
            expected = torch.from_numpy(reference[f"{name}/{key}"])
            assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max(), key


def test_the_published_size() -> None:
    with torch.device("meta"):
        network = StyTr2Network()
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    # AdaIN's decoder has 3.5 million.
    assert sizes["decoder"] == 3_505_219
    assert sizes["content_encoder"] == sizes["style_encoder"] == 3 * (4 * 512 * 513 + 513 * 2048 + 2049 * 512 + 4 * 512)
    assert sizes["transfer"] == 3 * (8 * 512 * 513 + 513 * 2048 + 2049 * 512 + 6 * 512)


def test_the_order_of_the_style_s_tokens_means_nothing() -> None:
    network = small()
    tokens, positions, size = network.encode_content(waves(1, 3, 32, 40))
    style = waves(1, 3, 48, 24, number=2)
    encoded = network.encode_style(style)
    wanted = network.transferred(tokens, positions, encoded, size)
    shuffled = encoded[:, torch.randperm(18, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(network.transferred(tokens, positions, shuffled, size), wanted, rtol=0, atol=1e-12)
    # Nor that of the style picture's patches, before its encoder.
    patches = style.unfold(2, 8, 8).unfold(3, 8, 8).flip(2, 3).permute(0, 1, 2, 4, 3, 5).reshape(style.shape)
    found = network.transferred(tokens, positions, network.encode_style(patches), size)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("content", "style"), [((32, 32), (32, 32)), ((40, 24), (21, 64))])
def test_windows_as_large_as_the_map_are_full_attention(content: tuple[int, int], style: tuple[int, int]) -> None:
    pictures = waves(2, 3, *content), waves(2, 3, *style, number=2)
    windowed = replace(SMALL, window=8)
    torch.testing.assert_close(small(windowed)(*pictures), small()(*pictures), rtol=0, atol=1e-12)


def test_smaller_windows_are_not() -> None:
    pictures = waves(1, 3, 64, 64), waves(1, 3, 64, 64, number=2)
    windowed = replace(SMALL, window=4)
    assert (small(windowed)(*pictures) - small()(*pictures)).abs().max() > 1e-3


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize(("content", "style"), [((1, 1), (3, 70)), ((61, 47), (8, 8)), ((33, 64), (128, 5))])
def test_pictures_of_any_two_sizes(content: tuple[int, int], style: tuple[int, int], window: int) -> None:
    network = small(replace(SMALL, window=window))
    picture = network(waves(1, 3, *content), waves(1, 3, *style))
    assert picture.shape == (1, 3, *content)
    assert picture.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (18, 31), (57, 19)])
def test_positions_are_pooled_and_enlarged_as_by_pytorch(height: int, width: int) -> None:
    x = waves(2, 3, height, width)
    pooled = F.adaptive_avg_pool2d(x, 18)
    torch.testing.assert_close(_pooled(x, 18), pooled)
    wanted = F.interpolate(pooled, (height, width), mode="bilinear")
    torch.testing.assert_close(_enlarged(pooled, height, width), wanted)


def test_pairs_are_what_each_alone_would_be() -> None:
    network = small()
    content, style = waves(2, 3, 24, 32), waves(3, 3, 16, 40, number=2)
    pairs = torch.tensor([[0, 2], [1, 1], [1, 0], [0, 2]])
    found = network(content, style, pairs)
    for picture, (one, two) in zip(found, pairs.tolist(), strict=True):
        alone = network(content[one : one + 1], style[two : two + 1])[0]
        torch.testing.assert_close(picture, alone, rtol=0, atol=1e-12)


def test_dropout_is_for_training_alone() -> None:
    network, pictures = small(), (waves(1, 3, 32, 32), waves(1, 3, 32, 32, number=2))
    wanted = network(*pictures)
    network.train()
    torch.manual_seed(0)
    assert (network(*pictures) - wanted).abs().max() > 1e-3
    without = replace(SMALL, dropout=0.0)
    assert torch.equal(small(without).train()(*pictures), wanted)


@pytest.mark.parametrize("options", [{"width": 20, "heads": 2}, {"width": 24, "heads": 5}])
def test_widths_that_do_not_fit_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"width \d+ must be a multiple of heads \(\d\) and of 8"):
        StyTr2Network(StyTr2Options(**options))  # type: ignore[arg-type] # a bool is no int


def test_it_starts_as_the_authors_does() -> None:
    torch.manual_seed(0)
    network = StyTr2Network(StyTr2Options(width=64, heads=4, encoder_layers=1, transfer_layers=1))
    theirs = nn.MultiheadAttention(64, 4)
    bound = theirs.in_proj_weight.abs().max()
    for layer in (network.content_encoder[0].attention.query, network.transfer[0].second.value):  # type: ignore[union-attr]
        assert layer.weight.abs().max().item() == pytest.approx(bound.item(), rel=0.01)
        assert not layer.bias.any()


def flops(side: int, window: int) -> int:
    """Of a content and a style picture of this side."""
    with FakeTensorMode(), torch.no_grad():
        network, pictures = StyTr2Network(StyTr2Options(window=window)).eval(), torch.zeros(1, 3, side, side)
        # The counter knows products of matrices, and not the CPU's fused attention.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(pictures, pictures)
    return int(counter.get_total_flops())


def test_windows_save_what_the_page_says() -> None:
    assert 1 - flops(1024, 8) / flops(1024, 0) == pytest.approx(0.40, abs=0.005)
