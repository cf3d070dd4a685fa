"""WCT2's networks, and the whole transfer, against the authors' code (clovaai/WCT2, MIT) with the same weights.

Its figures are of float64. For the transfer it was given whitening and colouring by plain SVDs with 0.1 of the mean
variance added to the content's, since its own adds the identity to both covariances.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.kinds.stylizer import Style
from lightning_modules.networks.vgg import LAYERS, VGG19
from lightning_modules.networks.wct2 import Unpooling, WaveletDecoder, WaveletDecoderOptions, WaveletEncoder
from lightning_modules.style.wct2 import Target, TransferAt, WCT2Transfer
from tests.formulas import gradient_sums, set_he_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "wct2.npz"
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def networks(unpooling: Unpooling, dtype: torch.dtype) -> tuple[WaveletEncoder, WaveletDecoder]:
    decoder = WaveletDecoder(WaveletDecoderOptions(unpooling)).to(dtype)
    set_he_weights_(decoder.parameters())
    return WaveletEncoder(encoder_weights(dtype), unpooling), decoder


@cache
def encoder_weights(dtype: torch.dtype) -> VGG19:
    vgg = VGG19(None)
    # Up to relu4_1.
    for name in LAYERS[9:]:
        del vgg.convolutions[name]
    set_he_weights_(vgg.parameters())
    return vgg.to(dtype)


def apart(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference, as a share of the largest figure."""
    theirs = torch.from_numpy(expected)
    return float((found.detach().double() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("unpooling", ["sum", "cat5"])
def test_networks_are_the_authors(unpooling: Unpooling, dtype: torch.dtype) -> None:
    encoder, decoder = networks(unpooling, dtype)
    images = waves(1, 3, 24, 32, number=1).to(dtype)
    levels, skips = encoder(images)
    picture = decoder(levels[-1], skips)
    (picture * waves(*picture.shape, number=2)).sum().backward()
    with np.load(REFERENCE) as reference:
        for number, level in enumerate(levels, 1):
            expected = reference[f"{unpooling}/level{number}"]
            assert apart(level.flatten()[::17], expected) < TOLERANCES[dtype], number
        assert apart(picture, reference[f"{unpooling}/picture"]) < TOLERANCES[dtype]
        # A sum over all of a weight's entries rounds more.
        assert apart(gradient_sums(decoder), reference[f"{unpooling}/sums"]) < 3 * TOLERANCES[dtype]


@pytest.mark.parametrize("unpooling", ["sum", "cat5"])
@pytest.mark.parametrize("places", [("encoder", "skip", "decoder"), ("skip", "decoder")])
def test_the_transfer_visits_the_authors_places(unpooling: Unpooling, places: tuple[TransferAt, ...]) -> None:
    encoder, decoder = networks(unpooling, torch.float64)
    method = WCT2Transfer(encoder, decoder, transfer_at=places, epsilon=0.1)
    everywhere = torch.ones(1, 1, 1)
    content, style = waves(1, 3, 24, 32, number=1), waves(1, 3, 32, 24, number=3)
    with torch.no_grad():
        target = Target(method.walk(style, everywhere, None, decode=False)[0], 0.8, everywhere)
        picture = method.walk(content, everywhere, None, target)[1]
    with np.load(REFERENCE) as reference:
        assert apart(picture, reference[f"{unpooling}/transferred/{'-'.join(places)}"]) < 1e-7


def test_tiles_of_odd_pictures_change_nothing_and_alpha_0_gives_the_content() -> None:
    method = WCT2Transfer(*networks("cat5", torch.float64))
    content, style = waves(1, 3, 21, 27, number=1), waves(1, 3, 14, 19, number=3)
    whole = method.stylize(content, Style([style]))
    assert whole.shape == content.shape
    assert whole.isfinite().all()
    # The root of a singular covariance of 512 channels has half of float64's digits.
    torch.testing.assert_close(method.stylize(content, Style([style]), tile=12), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(method.stylize(content, Style([style], alpha=0.0)), content, rtol=0, atol=1e-6)


def test_one_label_equals_none_and_regions_have_styles_of_their_own() -> None:
    method = WCT2Transfer(*networks("sum", torch.float64), transfer_at=("encoder", "skip"))
    content, style = waves(1, 3, 21, 27, number=1), waves(1, 3, 14, 19, number=3)
    whole = method.stylize(content, Style([style]))
    labelled = Style([style], masks=torch.ones(1, 21, 27), regions=[torch.ones(14, 19)])
    torch.testing.assert_close(method.stylize(content, labelled), whole, rtol=0, atol=1e-6)
    left = torch.zeros(21, 27)
    left[:, :12] = 1
    regions = [torch.ones(14, 19), torch.ones(14, 19)]
    regions[1][:7] = 0
    parted = Style([style, style], masks=torch.stack([left, 1 - left]), regions=regions)
    found = method.stylize(content, parted)
    torch.testing.assert_close(method.stylize(content, parted, tile=12), found, rtol=0, atol=1e-6)
    assert (found - whole).abs().mean() > 1e-3


def test_levels_recomputed_in_the_backward_pass_change_nothing() -> None:
    gradients = []
    for on in (False, True):
        encoder, decoder = networks("cat5", torch.float32)
        decoder.gradient_checkpointing = on
        levels, skips = encoder(waves(1, 3, 17, 22, number=1).float())
        decoder(levels[-1], skips).square().sum().backward()
        gradients.append(gradient_sums(decoder))
    torch.testing.assert_close(gradients[0], gradients[1])
