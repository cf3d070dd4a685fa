"""MCCNet's network against its authors' code (diyiiyiii/MCCNet), and the divisions and statistics that it guards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.losses.style import mean_std
from lightning_modules.networks.mccnet import MCCNetOptions, MCCNetwork, SelfCorrelation, normalized
from tests.formulas import gradient_sums, waves
from tests.lightning_modules.style.mccnet_weights import set_mccnet_weights_

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "mccnet.npz"


@pytest.fixture(scope="module")
def network() -> MCCNetwork:
    made = MCCNetwork().double()
    set_mccnet_weights_(made)
    return made


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_outputs_and_gradients_are_those_of_the_authors(
    network: MCCNetwork, dtype: torch.dtype, tolerance: float
) -> None:
    network.to(dtype).zero_grad()
    content, style = waves(2, 512, 2, 3, number=1), waves(2, 512, 3, 4, number=2)
    content, style = (features.to(dtype).requires_grad_() for features in (content, style))
    output = network(content, style)
    (output * waves(*output.shape, number=3)).sum().backward()
    assert content.grad is not None
    assert style.grad is not None
    found = {
        "output": output.detach(),
        "content_gradient": content.grad,
        "style_gradient": style.grad[:, ::4],
        "sums": gradient_sums(network),
    }
    network.double()
    set_mccnet_weights_(network)
    with np.load(REFERENCE) as reference:
        for key, ours in found.items():
            expected = torch.from_numpy(reference[key])
            assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max(), key


def test_the_published_size() -> None:
    with torch.device("meta"):
        made = MCCNetwork()
    assert sum(p.numel() for p in made.parameters()) == 3_505_219 + 4 * 512 * 513


def test_pairs_are_what_each_alone_would_be(network: MCCNetwork) -> None:
    content, style = waves(2, 512, 2, 3), waves(3, 512, 3, 2, number=2)
    with torch.no_grad():
        found = network(content, style, torch.tensor([[0, 2], [1, 1], [0, 0]]))
        for picture, (one, two) in zip(found, ((0, 2), (1, 1), (0, 0)), strict=True):
            alone = network(content[one : one + 1], style[two : two + 1])[0]
            torch.testing.assert_close(picture, alone, rtol=0, atol=1e-11)


def test_only_channels_own_statistics_count(network: MCCNetwork) -> None:
    """Places of the style may be in any order, and each channel may have any scale."""
    style = waves(1, 512, 4, 5, number=2)
    with torch.no_grad():
        wanted = network.factors(style)
        torch.testing.assert_close(network.factors(style.flip(2, 3).transpose(2, 3)), wanted, rtol=1e-10, atol=1e-10)
        # But for the epsilon in the variance.
        torch.testing.assert_close(network.factors(100 * style + 7), wanted, rtol=1e-2, atol=1e-2)


def test_the_mean_that_it_divides_by_is_the_bias() -> None:
    torch.manual_seed(0)
    layer, features = SelfCorrelation(16, 1e-9).double(), torch.rand(2, 16, 9, 7, dtype=torch.float64)
    mapped = nn.Conv2d.forward(layer, normalized(features)).flatten(2)
    torch.testing.assert_close(layer(features), mapped.square().sum(2) / mapped.sum(2))


def test_a_bias_of_nearly_nothing_divides_by_the_floor() -> None:
    layer, features = SelfCorrelation(4, 0.5), torch.rand(1, 4, 3, 3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.0, -1e-30, 0.25, -2.0]))  # type: ignore[union-attr]
        energy = layer.__class__.__mro__[1].forward(layer, normalized(features)).square().mean((2, 3))
    found = layer(features)
    torch.testing.assert_close(found, energy / torch.tensor([0.5, -0.5, 0.5, -2.0]))
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_normalized_features_have_the_statistics_of_the_losses() -> None:
    features = torch.rand(2, 3, 5, 6)
    mean, std = mean_std(features)
    torch.testing.assert_close(normalized(features), (features - mean) / std)
    torch.testing.assert_close(normalized(features[..., :2], (mean, std)), ((features - mean) / std)[..., :2])
    assert not normalized(features[..., :1, :1]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_stay_in_float32(dtype: torch.dtype) -> None:
    # 300 squared is beyond float16.
    layer, features = SelfCorrelation(8, 1e-3), 300 * torch.rand(1, 8, 6, 6)
    wanted = layer(features)
    with torch.autocast("cpu", dtype=dtype):
        found = layer(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.03 * wanted.abs().max().item())


def test_checkpointing_changes_nothing() -> None:
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        made = MCCNetwork(MCCNetOptions(gradient_checkpointing=on))
        made(torch.rand(1, 512, 2, 2), torch.rand(1, 512, 2, 2)).square().sum().backward()
        gradients.append([p.grad for p in made.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])
