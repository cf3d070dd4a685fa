"""Real images, and the reference implementations that the metrics are held against."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from datamodules.assets.fetching import fetch


def cifar10(split: str, count: int) -> Tensor:
    """The first ``count`` images of CIFAR-10's train or test split, uint8 [count, 3, 32, 32]."""
    names = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    folder = fetch("cifar10", progress=False)
    # The official binary format: a label's byte, then 3 x 1024 bytes of colour planes.
    rows = np.concatenate([np.fromfile(folder / f"{name}.bin", np.uint8).reshape(-1, 3073) for name in names])
    return torch.from_numpy(rows[:count, 1:].reshape(-1, 3, 32, 32).copy())


class FidelityInception(fidelity.FeatureExtractorInceptionV3):
    """torch-fidelity's network, to be filled with weights afterwards."""

    def __init__(self, features: list[str]) -> None:
        original = fidelity.load_state_dict_from_url
        fidelity.load_state_dict_from_url = lambda *_, **__: None
        try:
            super().__init__("inception-v3-compat", features)
        finally:
            fidelity.load_state_dict_from_url = original

    def load_state_dict(self, state_dict: dict[str, Tensor] | None, *args: object, **kwargs: object) -> None:
        if state_dict is not None:
            super().load_state_dict(state_dict, *args, **kwargs)


def reference_inception(weights: Path) -> FidelityInception:
    """torch-fidelity's network with the weights of the TorchScript archive, 2048-d features only."""
    network = FidelityInception(["2048"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and the independent way to read the file
        tensors = torch.jit.load(str(weights), map_location="cpu").state_dict()
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    convs = [module for module in network.modules() if isinstance(module, fidelity.BasicConv2d)]
    with torch.no_grad():
        for name, conv in zip(names, convs, strict=True):
            conv.conv.weight.copy_(tensors[f"{name}.weight"])
            conv.bn.bias.copy_(tensors[f"{name}.beta"])
            conv.bn.running_mean.copy_(tensors[f"{name}.mean"])
            conv.bn.running_var.copy_(tensors[f"{name}.var"])
    return network


class PooledFeatures(nn.Module):
    """``network`` as torchmetrics wants a feature network: images in, one tensor [N, ``num_features``] out."""

    def __init__(self, network: Callable[[Tensor], Sequence[Tensor]], num_features: int) -> None:
        super().__init__()
        self.network = network
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def features_in_batches(network: nn.Module, images: Tensor, batch_size: int = 20) -> Tensor:
    """Features [N, D] of ``images``; the network's first output."""
    with torch.no_grad():
        return torch.cat([network(batch)[0].clone() for batch in images.split(batch_size)])


def scipy_frechet(features1: Tensor, features2: Tensor) -> float:
    """FID as its first implementations compute it: numpy's covariance, scipy's matrix square root."""
    x, y = features1.double().numpy(), features2.double().numpy()
    cov1, cov2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(cov1 @ cov2))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root))
