"""LPIPS: how far apart two pictures look to people, as a loss and as a metric.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", with version 0.1 of its
linear heads: features of a network that classifies images, normalised at each place, whose squared differences are
weighted channel by channel so that their sum agrees with people's judgements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from gesso.common.pickles import load_arrays
from lightning_modules.networks.precision import like_weights

LPIPSName = Literal["vgg16", "alexnet"]

#: ImageNet's mean and standard deviation for pictures in [-1, 1], rounded as in the authors' code.
MEAN = (-0.030, -0.088, -0.188)
STD = (0.458, 0.448, 0.450)
#: Channels at the ends of the five stages, where features are compared.
CHANNELS = {"vgg16": (64, 128, 256, 512, 512), "alexnet": (64, 192, 384, 256, 256)}
#: Sides below which nothing is left for the last stage.
SMALLEST = {"vgg16": 16, "alexnet": 31}
#: Added to squared norms, so that a place where nothing is active has a gradient; as in torchmetrics.
EPSILON = 1e-8


class LPIPS(nn.Module):
    """The distance of two pictures, frozen: its gradient goes to the pictures alone.

    VGG16 is the usual training loss. AlexNet is far lighter, and what its authors recommend for measuring. Numbers of
    the two cannot be compared.

    Args:
        weights: the asset ``vgg16_lpips`` or ``alexnet_lpips``: torchvision's convolutions and the authors' heads.
        name: the network that the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path, name: LPIPSName = "vgg16") -> None:
        super().__init__()
        if name not in CHANNELS:
            raise ValueError(f"LPIPS has no network {name!r}; it has {', '.join(get_args(LPIPSName))}")
        self.name = name
        self.stages = nn.ModuleList(_vgg16() if name == "vgg16" else _alexnet())
        self.heads = nn.ParameterList(torch.zeros(channels) for channels in CHANNELS[name])
        for constant, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(constant, torch.tensor(values).view(3, 1, 1), persistent=False)
        self._load(weights)
        # Twice as fast on a CPU, ten times in bf16 on one without such instructions.
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair: 0 for equal pictures, rarely above 1.

        Args:
            images, target: [N, 3, H, W] in [-1, 1], RGB, with sides of ``SMALLEST`` or more.

        Returns:
            float32 [N], whatever the autocast, in whose precision only the convolutions run.

        Raises:
            ValueError: shapes differ, or pictures are too small.
        """
        self._check(images, target)
        # Each on its own, since a target without gradient then keeps no activations.
        return self._distances(images, map(_unit, self._features(target)))

    def to_targets(self, target: Tensor) -> Callable[[Tensor], Tensor]:
        """The distances to pictures that stay the same, whose features are computed once.

        Args:
            target: [N, 3, H, W] in [-1, 1].

        Returns:
            Images [N, 3, H, W] to distances float32 [N], as ``forward`` gives them.
        """
        self._check(target, target)
        with torch.no_grad():
            kept = [_unit(features) for features in self._features(target)]

        def distances(images: Tensor) -> Tensor:
            self._check(images, target)
            return self._distances(images, kept)

        return distances

    def _check(self, images: Tensor, target: Tensor) -> None:
        smallest = SMALLEST[self.name]
        if images.shape != target.shape or images.dim() != 4 or min(images.shape[2:]) < smallest:
            raise ValueError(
                f"LPIPS ({self.name}) compares pictures of one shape [N, 3, H, W], with sides of {smallest} pixels or "
                f"more; got {tuple(images.shape)} and {tuple(target.shape)}"
            )

    def _distances(self, images: Tensor, theirs: Iterable[Tensor]) -> Tensor:
        distance = torch.zeros(len(images), device=images.device)
        for ours, unit, head in zip(self._features(images), theirs, self.heads, strict=True):
            difference = (_unit(ours) - unit).square().mean((2, 3))
            distance = distance + (difference * head.float()).sum(1)
        return distance

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        x = like_weights((images - self.mean) / self.std, self)
        for stage in self.stages:
            x = stage(x)
            yield x

    def _load(self, weights: Path) -> None:
        data = weights.read_bytes()
        backbone = {"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}[self.name]
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        try:
            tree = load_arrays(data)
            for number, convolution in enumerate(convolutions):
                entry = tree[backbone][f"Conv_{number}"]
                assert convolution.bias is not None
                # Flax has [height, width, in, out].
                _copy(convolution.weight, entry["kernel"].transpose(3, 2, 0, 1))
                _copy(convolution.bias, entry["bias"])
            for number, head in enumerate(self.heads):
                _copy(head, tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"].reshape(-1))
        except Exception as error:  # a damaged or hand-made pickle can raise anything at all
            raise ValueError(
                f"{weights}: not the LPIPS weights of {self.name}; delete it and run `gesso fetch {self.name}_lpips`"
            ) from error


def _unit(features: Tensor) -> Tensor:
    """Vectors of length 1 at each place, float32 also under autocast."""
    features = features.float()
    return features * (features.square().sum(1, keepdim=True) + EPSILON).rsqrt()


def _vgg16() -> Iterator[nn.Sequential]:
    """relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of Simonyan and Zisserman 2014."""
    channels = 3
    for number, (count, width) in enumerate(zip((2, 2, 3, 3, 3), CHANNELS["vgg16"], strict=True)):
        stage = nn.Sequential(*[nn.MaxPool2d(2)] * bool(number))
        for _ in range(count):
            stage.extend([nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)])
            channels = width
        yield stage


def _alexnet() -> Iterator[nn.Sequential]:
    """relu1 to relu5 of Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"."""
    first = nn.Conv2d(3, 64, 11, stride=4, padding=2)
    second, third = nn.Conv2d(64, 192, 5, padding=2), nn.Conv2d(192, 384, 3, padding=1)
    fourth, fifth = nn.Conv2d(384, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1)
    for convolution in (first, second, third, fourth, fifth):
        pool = [nn.MaxPool2d(3, stride=2)] * (convolution in (second, third))
        yield nn.Sequential(*pool, convolution, nn.ReLU(inplace=True))


def _copy(parameter: Tensor, array: np.ndarray) -> None:
    values = torch.from_numpy(array.astype(np.float32))
    if values.shape != parameter.shape:  # copy_ would broadcast
        raise ValueError(f"{tuple(values.shape)} where {tuple(parameter.shape)} belongs")
    parameter.detach().copy_(values)
