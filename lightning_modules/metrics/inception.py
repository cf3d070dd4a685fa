"""The Inception network of 2015 that defines FID, KID and IS (Szegedy et al. 2015; Heusel et al. 2017).

It is not torchvision's Inception v3: TensorFlow's frozen graph ``inception-2015-12-05`` averages without the padding,
takes a maximum in its last block where the paper averages, and has 1008 classes. Only these weights and this graph
give numbers that can be compared with papers.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURE_DIM = 2048
BATCH_NORM_EPS = 1e-3


class Conv(nn.Conv2d):
    """Convolution + ReLU; the graph's BatchNorm is folded into weight and bias by ``load_inception``.

    ``same`` keeps the spatial size; the graph's other convolutions have no padding.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, *, stride: int = 1, same: bool = True
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else (0, 0)
        super().__init__(inputs, outputs, (height, width), stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


class AveragedConv(Conv):
    """Average pooling 3x3 that leaves the padding out, then 1x1 convolution + ReLU.

    Each output pixel averages with weights that sum to one, so pooling commutes with the 1x1 convolution and its bias;
    pooling second touches up to six times fewer channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = self._conv_forward(x, self.weight, self.bias)
        return F.relu_(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False))


class Branches(nn.ModuleList):
    """Applies every branch to the same input and concatenates the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def _chain(inputs: int, *layers: tuple[int, int | tuple[int, int]]) -> nn.Sequential:
    """Convolutions one after the other, each ``(channels, kernel)``."""
    convs = nn.Sequential()
    for outputs, kernel in layers:
        convs.append(Conv(inputs, outputs, kernel))
        inputs = outputs
    return convs


def _block_35(inputs: int, pooled: int) -> Branches:
    return Branches(
        [
            Conv(inputs, 64),
            _chain(inputs, (48, 1), (64, 5)),
            _chain(inputs, (64, 1), (96, 3), (96, 3)),
            AveragedConv(inputs, pooled),
        ]
    )


def _block_17(inputs: int, middle: int) -> Branches:
    row, column = (1, 7), (7, 1)
    return Branches(
        [
            Conv(inputs, 192),
            _chain(inputs, (middle, 1), (middle, row), (192, column)),
            _chain(inputs, (middle, 1), (middle, column), (middle, row), (middle, column), (192, row)),
            AveragedConv(inputs, 192),
        ]
    )


def _block_8(inputs: int, pool_branch: nn.Module) -> Branches:
    def fork() -> Branches:
        return Branches([Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))])

    return Branches(
        [
            Conv(inputs, 320),
            nn.Sequential(Conv(inputs, 384), fork()),
            nn.Sequential(Conv(inputs, 448), Conv(448, 384, 3), fork()),
            pool_branch,
        ]
    )


def _reduce_35() -> Branches:
    """35x35 to 17x17."""
    return Branches(
        [
            Conv(288, 384, 3, stride=2, same=False),
            _chain(288, (64, 1), (96, 3)).append(Conv(96, 96, 3, stride=2, same=False)),
            nn.MaxPool2d(3, stride=2),
        ]
    )


def _reduce_17() -> Branches:
    """17x17 to 8x8."""
    return Branches(
        [
            nn.Sequential(Conv(768, 192), Conv(192, 320, 3, stride=2, same=False)),
            _chain(768, (192, 1), (192, (1, 7)), (192, (7, 1))).append(Conv(192, 192, 3, stride=2, same=False)),
            nn.MaxPool2d(3, stride=2),
        ]
    )


class Inception2015(nn.Module):
    """Normalised images to pooled features and class logits.

    Args:
        num_classes: 1008 when the weights hold the classifier, else 0.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # The order of definition is the order of the weights in every published file.
        self.features = nn.Sequential(
            Conv(3, 32, 3, stride=2, same=False),
            Conv(32, 32, 3, same=False),
            Conv(32, 64, 3),
            nn.MaxPool2d(3, stride=2),
            Conv(64, 80),
            Conv(80, 192, 3, same=False),
            nn.MaxPool2d(3, stride=2),
            _block_35(192, 32),
            _block_35(256, 64),
            _block_35(288, 64),
            _reduce_35(),
            _block_17(768, 128),
            _block_17(768, 160),
            _block_17(768, 160),
            _block_17(768, 192),
            _reduce_17(),
            _block_8(1280, AveragedConv(1280, 192)),
            _block_8(2048, nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), Conv(2048, 192))),
        )
        # No bias: the reference implementation of IS drops it, and its published numbers rest on that.
        self.classifier = nn.Linear(FEATURE_DIM, num_classes, bias=False) if num_classes else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """``x``: float32 [N, 3, 299, 299] in [-1, 1). Returns features [N, 2048] and logits [N, 1008] or None."""
        x = self.features(x.contiguous(memory_format=torch.channels_last))
        pool = x.mean(dim=(2, 3))
        return pool, self.classifier(pool) if self.classifier is not None else None


def load_inception(weights: Path) -> Inception2015:
    """The network with ``weights``, for inference only.

    Args:
        weights: the 2015 network as a TorchScript archive (with or without classifier; its code is never run), or as
            the state dict that torch-fidelity and pytorch-fid publish.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds another network, or none.
    """
    convs: list[list[Tensor]] = [[], [], [], []]
    classifiers: list[Tensor] = []
    try:
        for name, tensor in _tensors(weights):
            if tensor.dim() == 4:
                convs[0].append(tensor)
            elif tensor.dim() == 2:
                classifiers.append(tensor)
            elif name.endswith((".beta", ".bn.bias")):
                convs[1].append(tensor)
            elif name.endswith(("mean", "var")):
                convs[2 if name.endswith("mean") else 3].append(tensor)
        network = Inception2015(num_classes=len(classifiers[0]) if classifiers else 0)
        with torch.no_grad():
            targets = (module for module in network.modules() if isinstance(module, Conv))
            for conv, weight, beta, mean, var in zip(targets, *convs, strict=True):
                _fold(conv, weight, beta, mean, var)
            if network.classifier is not None:
                network.classifier.weight.copy_(classifiers[0])
    except FileNotFoundError:
        raise
    # Whatever a damaged or foreign file breaks first; the cause stays attached.
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError, EOFError, OSError) as error:
        raise _not_inception(weights) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _not_inception(weights) from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _not_inception(weights: Path) -> ValueError:
    return ValueError(f"{weights}: not the weights of the 2015 Inception; delete it and run `gesso fetch inception`")


def _fold(conv: Conv, weight: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> None:
    """Copies ``weight`` with its BatchNorm (which has no scale) folded in."""
    scale = (var.double() + BATCH_NORM_EPS).rsqrt()
    assert conv.bias is not None
    if conv.weight.shape != weight.shape:
        raise ValueError(f"convolution {tuple(weight.shape)} where {tuple(conv.weight.shape)} belongs")
    conv.weight.copy_(weight * scale.view(-1, 1, 1, 1))
    conv.bias.copy_(beta - mean * scale)


def _tensors(weights: Path) -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) in order of definition, from a TorchScript archive or a state dict."""
    with zipfile.ZipFile(weights) if zipfile.is_zipfile(weights) else open(weights, "rb") as file:
        if isinstance(file, zipfile.ZipFile) and any(name.endswith("/constants.pkl") for name in file.namelist()):
            yield from _walk(_TorchScriptReader(file).load())
            return
    yield from torch.load(weights, map_location="cpu", weights_only=True).items()


def _walk(record: _Record, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(record).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Record):
            yield from _walk(value, f"{prefix}{name}.")


class _Record:
    """Stands in for every class and function that a TorchScript pickle names: it keeps attributes and does nothing."""

    def __init__(self, *_: object) -> None: ...


class _TorchScriptReader(pickle.Unpickler):
    """Reads the module tree of a TorchScript archive as plain data.

    ``torch.jit.load`` would compile and run the archive's code; this builds only float32 tensors and ``_Record``.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        self.folder = pickled.removesuffix("data.pkl") + "data/"
        super().__init__(archive.open(pickled))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return name if module == "torch" else _Record

    def persistent_load(self, pid: tuple[Any, ...]) -> Tensor | None:
        _, kind, key, *_ = pid
        if kind != "FloatStorage":
            return None  # counters and the like; no weight of this network
        return torch.from_numpy(np.frombuffer(bytearray(self.archive.read(f"{self.folder}{key}")), np.float32))


def _rebuild_tensor(
    storage: Tensor | None, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Any:
    return None if storage is None else storage.as_strided(size, stride, offset)
