"""Feature extractors: a network and a resize, which together define a FID.

A metric computed with one of them carries its name, since numbers of different extractors cannot be compared:

- ``inception-tf``: the Inception of 2015 after TensorFlow 1's bilinear resize, as in Heusel et al. (2017).
- ``inception-clean``: the same network after an antialiased resize, as in clean-fid (Parmar et al. 2022).
- ``mobilenet_v2``: torchvision's MobileNetV2; far lighter, for machines without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.metrics import inception, mobilenet
from lightning_modules.metrics.specs import EXTRACTORS

INCEPTION_SIZE = 299
MOBILENET_SIZE = 224
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """``pool``: float32 [N, D]. ``logits``: float32 [N, classes], or None when the weights hold no classifier."""

    pool: Tensor
    logits: Tensor | None


class FeatureExtractor(nn.Module):
    """Maps uint8 images to float32 features: in full float32 also under autocast, and without gradients.

    Args:
        name: one of ``specs.EXTRACTORS``.
        network: normalised images to (features, logits or None).
        preprocess: float32 [N, 1 or 3, H, W] in [0, 255] to the network's normalised input with 3 channels.
        feature_dim: D.
        num_classes: length of the logits, 0 without a classifier.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor],
        *,
        feature_dim: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.preprocess = preprocess
        self.feature_dim = feature_dim
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Features:
        """``images``: uint8 [N, 1 or 3, H, W] in [0, 255]; grey is repeated over the three channels.

        Raises:
            ValueError: another dtype or number of channels.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"{self.name} takes uint8 images [N, 1 or 3, H, W]; got {images.dtype} {tuple(images.shape)}"
            )
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False), exact_float32():
            return Features(*self.network(self.preprocess(images.float())))

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Does nothing: an extractor stays in eval mode, also as part of a module that trains."""
        return super().train(False)


def check_classifier(extractor: FeatureExtractor, metrics: Collection[str]) -> None:
    """Checks that an extractor classifies where the Inception Score is asked for.

    Raises:
        ValueError: its weights hold no classifier.
    """
    if "is" in metrics and not extractor.num_classes:
        raise ValueError(
            f"the weights of {extractor.name} hold no classifier, which the Inception Score needs; "
            "use mobilenet_v2, or weights with logits"
        )


def build_extractor(name: str, weights: Path) -> FeatureExtractor:
    """The extractor ``name`` with ``weights`` (see ``load_inception`` and ``MobileNetV2`` for the files they read).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unknown name, or weights of another network.
    """
    if name == "mobilenet_v2":
        return FeatureExtractor(
            name,
            mobilenet.MobileNetV2(weights),
            _prepare_mobilenet,
            feature_dim=mobilenet.FEATURE_DIM,
            num_classes=mobilenet.NUM_CLASSES,
        )
    if name not in EXTRACTORS:
        raise ValueError(f"unknown feature extractor {name!r}; there are {', '.join(EXTRACTORS)}")
    network = inception.load_inception(weights)
    return FeatureExtractor(
        name,
        network,
        _prepare_inception_tf if name == "inception-tf" else _prepare_inception_clean,
        feature_dim=inception.FEATURE_DIM,
        num_classes=network.classifier.out_features if network.classifier is not None else 0,
    )


@contextmanager
def exact_float32() -> Iterator[None]:
    """Context manager: disables TensorFloat-32 and bf16 in float32 arithmetic, which change features by 1e-3."""
    backends: Any = torch.backends
    switches = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """Context manager: full float32 whatever the training's autocast, in which evaluations run."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False), exact_float32():
        yield


def resize_tensorflow(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of TensorFlow 1 (``align_corners=False``): no antialiasing, and pixel i sits at i, not i + 1/2.

    Args:
        images: float [N, C, H, W].
        size: height and width of the result.
    """
    for dim in (3, 2):
        length = images.shape[dim]
        position = torch.arange(size, device=images.device, dtype=torch.float32) * (length / size)
        low = position.long()
        high = (low + 1).clamp_max(length - 1)
        weight = (position - low).to(images.dtype).view(-1, *[1] * (3 - dim))
        start = images.index_select(dim, low)
        images = start + (images.index_select(dim, high) - start) * weight
    return images


def resize_clean(images: Tensor, size: int) -> Tensor:
    """Antialiased bicubic resize of float images, clamped to [0, 255] and not rounded, as clean-fid does with PIL.

    Args:
        images: float [N, C, H, W] in [0, 255].
        size: height and width of the result.
    """
    # PIL keeps its filter in float64; in float32 large images would differ by 5e-3.
    resized = F.interpolate(images.double(), (size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.to(images.dtype).clamp_(0, 255)


def _prepare_inception_tf(images: Tensor) -> Tensor:
    return ((resize_tensorflow(images, INCEPTION_SIZE) - 128) / 128).expand(-1, 3, -1, -1)


def _prepare_inception_clean(images: Tensor) -> Tensor:
    return ((resize_clean(images, INCEPTION_SIZE) - 128) / 128).expand(-1, 3, -1, -1)


def _prepare_mobilenet(images: Tensor) -> Tensor:
    """Resizes the whole image to 224x224 (bilinear, antialiased; no crop), and normalises as for ImageNet."""
    size = (MOBILENET_SIZE, MOBILENET_SIZE)
    images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std
