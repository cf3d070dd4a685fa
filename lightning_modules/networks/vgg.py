"""VGG19 with normalised activations, the encoder that style transfer measures pictures with.

Huang and Belongie's weights (AdaIN, 2017), after Gatys et al. 2016: scaled so that each layer's mean activation over
images is 1, reflection padding, and the ImageNet normalisation folded into a first 1 x 1 convolution.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.padding import reflect
from lightning_modules.networks.precision import like_weights

#: Convolutions of each block, and their channels.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
#: ``relu1_1`` to ``relu5_4``, in the order of the network.
LAYERS = tuple(f"relu{block}_{number}" for block, (count, _) in enumerate(BLOCKS, 1) for number in range(1, count + 1))


class VGG19(nn.Module):
    """The encoder up to ``relu5_4``, frozen; only as deep as it is asked.

    Args:
        weights: ``vgg_normalised.pth``, the asset ``vgg19_normalized``; None: random ones, for speed tests alone.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.normalize = nn.Conv2d(3, 3, 1)
        self.convolutions = nn.ModuleDict()
        channels = 3
        for block, (count, width) in enumerate(BLOCKS, 1):
            for number in range(1, count + 1):
                self.convolutions[f"relu{block}_{number}"] = nn.Conv2d(channels, width, 3)
                channels = width
        if weights is not None:
            load_in_order(self, weights, "the normalised VGG19", "vgg19_normalized")
        # Twice as fast as row by row, in bf16 on some processors ten times.
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of images.

        Args:
            images: [N, 3, H, W] in [-1, 1], RGB, of any side.
            layers: some of ``LAYERS``.

        Returns:
            By layer, ``[N, C, H / 2^b, W / 2^b]`` (rounded up) for one of block b + 1; after the ReLU.

        Raises:
            ValueError: there is no such layer.
        """
        if unknown := [layer for layer in layers if layer not in LAYERS]:
            raise ValueError(f"VGG19 has no layer {unknown[0]!r}; it has {', '.join(LAYERS)}")
        found: dict[str, Tensor] = {}
        x = self.normalize(like_weights((images + 1) / 2, self))
        for name, convolution in self.convolutions.items():
            if len(found) == len(set(layers)):
                break
            if name.endswith("_1") and name != "relu1_1":
                # Odd sides keep their last row and column.
                x = F.max_pool2d(x, 2, ceil_mode=True)
            # In place: the weights have no gradient, so that the earlier values are not needed.
            x = F.relu(convolution(reflect(x)), inplace=True)
            if name in layers:
                found[name] = x
        return found

    def up_to(self, layer: str) -> VGG19:
        """The encoder without what lies behind a layer; it shares the weights."""
        shorter = copy.copy(self)
        kept = LAYERS[: LAYERS.index(layer) + 1]
        convolutions = nn.ModuleDict({name: self.convolutions[name] for name in kept})
        shorter._modules = {**self._modules, "convolutions": convolutions}
        return shorter


def load_in_order(network: nn.Module, weights: Path, what: str, asset: str) -> None:
    """Takes over published weights, whose names are places in their authors' sequence of layers.

    Args:
        network: its parameters, in their order, are the file's.
        what, asset: what the file is, and its name for ``gesso fetch``.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        tensors = torch.load(weights, map_location="cpu", weights_only=True).values()
        named = zip(network.state_dict(), tensors, strict=True)
        network.load_state_dict(dict(named))
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load and load_state_dict raise a dozen kinds for damaged and foreign files
        raise ValueError(f"{weights}: not {what}; delete it and run `gesso fetch {asset}`") from error
