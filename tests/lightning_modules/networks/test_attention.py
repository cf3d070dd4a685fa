"""Self-attention against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.networks.attention import SelfAttention


@pytest.mark.parametrize("double_backward", [False, True])
def test_attention_is_the_papers_formula(double_backward: bool) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(16, double_backward=double_backward)
    x = torch.randn(2, 16, 8, 6)
    assert torch.equal(layer(x), x), "gamma starts at 0"
    layer.gamma.data.fill_(0.7)

    maps = x.double().numpy()
    f, g, h, v = (
        module.weight.detach().double().numpy()[:, :, 0, 0]
        for module in (layer.key, layer.query, layer.value, layer.output)
    )

    def pooled(weight: np.ndarray, image: np.ndarray) -> np.ndarray:
        projected = np.einsum("oc,chw->ohw", weight, image)
        return projected.reshape(len(weight), 4, 2, 3, 2).max((2, 4)).reshape(len(weight), -1)

    for image, ours in zip(maps, layer(x).detach().double().numpy(), strict=True):
        keys, values = pooled(f, image), pooled(h, image)
        for row in range(8):
            for column in range(6):
                weights = np.exp(keys.T @ (g @ image[:, row, column]))
                expected = image[:, row, column] + 0.7 * v @ (values @ (weights / weights.sum()))
                np.testing.assert_allclose(ours[:, row, column], expected, atol=1e-5)


@pytest.mark.slow
def test_attention_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(8, double_backward=True).double()
    layer.gamma.data.fill_(0.7)
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)


def test_attention_needs_channels_to_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 8 channels, not 12; choose another width"):
        SelfAttention(12)
