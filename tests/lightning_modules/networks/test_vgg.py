"""The encoder and AdaIN's decoder against the published networks, layer by layer as their authors wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules.assets.fetching import fetch
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.vgg import LAYERS, VGG19
from tests.pictures import paintings, photographs


def published_encoder() -> nn.Sequential:
    """As pytorch-AdaIN has it: the places of its layers are the keys of the file."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    channels = 3
    for width in [64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, *[512] * 4]:
        if width:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2, 0, ceil_mode=True))
    network = nn.Sequential(*layers)
    network.load_state_dict(torch.load(fetch("vgg19_normalized"), weights_only=True))
    return network.requires_grad_(False)


def published_decoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 512
    for width in [256, 0, 256, 256, 256, 128, 0, 128, 64, 0, 64, 3]:
        if width:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
    network = nn.Sequential(*layers[:-1])
    network.load_state_dict(torch.load(fetch("adain_decoder"), weights_only=True))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def encoder() -> VGG19:
    return VGG19(fetch("vgg19_normalized", progress=False))


@pytest.mark.network
def test_every_layer_is_the_published_one(encoder: VGG19) -> None:
    images = torch.cat([photographs(48), paintings(48)])
    images = images[:, :, :45, :39]  # odd sides
    ours = encoder(images, LAYERS)
    x, names = (images + 1) / 2, iter(LAYERS)
    for layer in published_encoder():
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            # Of mean 1; sums of thousands of products in another order of memory.
            torch.testing.assert_close(ours[next(names)], x, rtol=1e-3, atol=1e-3)
    assert next(names, None) is None


@pytest.mark.network
def test_it_goes_no_deeper_than_asked(encoder: VGG19, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAYERS[LAYERS.index("relu3_1") + 1 :]:
        monkeypatch.setattr(encoder.convolutions[name], "forward", lambda x: pytest.fail("ran"))
    assert encoder(photographs(32), ("relu1_1", "relu3_1")).keys() == {"relu1_1", "relu3_1"}


@pytest.mark.network
@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_pictures_have_features(encoder: VGG19, side: int) -> None:
    assert encoder(torch.zeros(1, 3, side, 1), ("relu5_4",))["relu5_4"].shape == (1, 512, 1, 1)


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"0.weight": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"weights.pth: not the normalised VGG19; .*`gesso fetch vgg19_normalized"):
        VGG19(file)
    with pytest.raises(ValueError, match="no layer 'relu6_1'"):
        VGG19(None)(torch.zeros(1, 3, 8, 8), ("relu6_1",))


@pytest.mark.network
def test_the_decoder_is_the_published_one(encoder: VGG19) -> None:
    decoder = Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))
    features = encoder(photographs(64), ("relu4_1",))["relu4_1"]
    theirs = published_decoder()(features) * 2 - 1
    torch.testing.assert_close(decoder(features), theirs, rtol=1e-4, atol=1e-4)
    # It is trained: photographs come back.
    images = photographs(128)
    again = decoder(encoder(images, ("relu4_1",))["relu4_1"])
    correlation = torch.corrcoef(torch.stack([images.flatten(), again.flatten()]))[0, 1]
    assert correlation > 0.7
