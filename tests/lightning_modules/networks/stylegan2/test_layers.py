"""StyleGAN2's layers: modulation against weights of each image's own, float16, groups of the minibatch deviation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.networks.stylegan2.filters import setup_filter
from lightning_modules.networks.stylegan2.layers import MinibatchDeviation, bias_act, modulated_conv2d


def test_modulation_equals_weights_of_each_images_own() -> None:
    torch.manual_seed(0)
    x, weight, styles = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(3, 4)
    found = modulated_conv2d(x, weight, styles)
    for image, style, result in zip(x, styles, found, strict=True):
        own = weight * style[:, None, None]
        own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(result, F.conv2d(image[None], own, padding=1)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_large_styles_do_not_overflow_in_float16(double: bool) -> None:
    torch.manual_seed(0)
    taps = setup_filter() if double else None
    x, weight, styles = torch.randn(2, 64, 4, 4), torch.randn(8, 64, 3, 3), 1e4 * torch.randn(2, 64)
    exact = modulated_conv2d(x, weight, styles, upsample_taps=taps)
    half = modulated_conv2d(x.half(), weight, styles, upsample_taps=taps)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.02)


def test_the_clamp_scales_with_the_gain() -> None:
    x = torch.tensor([[-10.0, 1.0, 10.0]])
    found = bias_act(x, torch.tensor([0.0, 1.0, 0.0]), "lrelu", gain=0.5, clamp=4.0)
    torch.testing.assert_close(found, torch.tensor([[-1.41421, 1.41421, 2.0]]), rtol=1e-4, atol=1e-4)


def test_groups_are_the_same_for_any_number_of_ranks() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(8, 6, 2, 2), MinibatchDeviation(group=2, features=3)
    whole = layer(x)
    assert whole.shape == (8, 9, 2, 2)
    # A rank has every second image.
    for rank in (0, 1):
        torch.testing.assert_close(layer(x[rank::2]), whole[rank::2])
    apart = x.view(2, 4, 3, 2, 2, 2).std(0, correction=0).mean((2, 3, 4))
    torch.testing.assert_close(whole[:4, 6:, 1, 1], apart)


def test_a_batch_that_is_no_multiple_of_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match="groups of 4: 6 images are no multiple"):
        MinibatchDeviation(4)(torch.zeros(6, 2, 1, 1))


def test_the_rest_of_a_held_out_set_is_filled_up_with_its_first_images() -> None:
    x, layer = torch.randn(6, 2, 1, 1), MinibatchDeviation(4).eval()
    assert torch.equal(layer(x), layer(torch.cat([x, x[:2]]))[:6])
