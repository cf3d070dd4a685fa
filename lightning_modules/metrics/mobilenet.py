"""MobileNetV2 (Sandler et al. 2018) as a light feature extractor: FID within seconds on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2

FEATURE_DIM = 1280
NUM_CLASSES = 1000


class MobileNetV2(nn.Module):
    """Torchvision's network with its BatchNorms folded into the convolutions."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        network = mobilenet_v2(weights=None)
        try:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            raise
        except Exception as error:  # torch.load and load_state_dict raise a dozen kinds for damaged and foreign files
            raise ValueError(
                f"{weights}: not torchvision's MobileNetV2 weights; delete it and run `gesso fetch mobilenet_v2`"
            ) from error
        self.features = network.features.eval()
        self.classifier = network.classifier.eval()
        for module in self.features.modules():
            if isinstance(module, nn.Sequential):
                _fold_batch_norms(module)
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x``: float32 [N, 3, H, W], ImageNet-normalised. Returns features [N, 1280] and logits [N, 1000]."""
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        pool = x.mean(dim=(2, 3))
        return pool, self.classifier(pool)


def _fold_batch_norms(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        conv, norm = layers[i], layers[i + 1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[i] = fuse_conv_bn_eval(conv, norm)
            layers[i + 1] = nn.Identity()
