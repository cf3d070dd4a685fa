"""Weights, inputs and expected numbers of the comparisons with the authors' U-Nets (see fixtures/README.md)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[np.float64]

FIXTURES = Path(__file__).parent / "fixtures"
LABELS = (1, 3)
#: Modules of a residual block of Song's U-Net and ADM, ours to the authors'.
RESIDUAL_BLOCK = {
    "norm_in": "norm0",
    "conv_in": "conv0",
    "condition": "affine",
    "norm_out": "norm1",
    "conv_out": "conv1",
    "skip": "skip",
    "attention.norm": "norm2",
    "attention.to_qkv": "qkv",
    "attention.project": "proj",
}


def wave(name: str, shape: tuple[int, ...]) -> Array:
    """Numbers between -1 and 1 that look random, fixed by a name."""
    count = np.arange(int(np.prod(shape)), dtype=np.float64)
    return np.sin(0.37 * count * count + zlib.crc32(name.encode()) % 1000).reshape(shape)


def parameter(name: str, shape: tuple[int, ...]) -> Array:
    """A weight of the authors' network: matrices keep variances, vectors are near 0 (norms' weights: near 1)."""
    values = wave(name, shape)
    if len(shape) > 1:
        return values * (2 / np.prod(shape[1:])) ** 0.5
    if not shape:
        return np.asarray(0.7 + 0.2 * values)
    return (1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.2 * values


def inputs(channels: int, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, noise levels, labels of 4 classes (the last image has none: 4) and augmentation labels of 3 images."""
    images = torch.from_numpy(wave("images", (3, channels, side, side)) * 2**0.5)
    noise = torch.tensor([-1.3, 0.2, 0.9])
    labels = torch.tensor([*LABELS, 4])
    return images.to(dtype), noise.to(dtype), labels, torch.from_numpy(wave("augment", (3, 9))).to(dtype)


def summary(gradient: Array, name: str) -> tuple[float, float]:
    """Norm of a gradient, and its component along a direction fixed by the name."""
    direction = wave(f"along {name}", gradient.shape)
    return float(np.linalg.norm(gradient)), float((gradient * direction).sum() / np.linalg.norm(direction))


def fixture(name: str) -> tuple[dict[str, Array], list[str]]:
    """Expected arrays of a network, and the names of its tensors in the authors' code in the order of ``gradients``."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, str(arrays.pop("names")).split()


def keys(resolution: int, levels: int, blocks: int) -> dict[str, str]:
    """Our names of blocks (``encoder.0``) to the authors' (``enc.16x16_block0``)."""
    encoder, decoder = [], []
    for level in range(levels):
        side = resolution >> level
        names = [*(["down"] if level else []), *(f"block{number}" for number in range(blocks))]
        encoder += [f"enc.{side}x{side}_{name}" for name in names]
        start = ["in0", "in1"] if level == levels - 1 else ["up"]
        names = [*start, *(f"block{number}" for number in range(blocks + 1))]
        decoder = [*(f"dec.{side}x{side}_{name}" for name in names), *decoder]
    numbered = {f"encoder.{number}": name for number, name in enumerate(encoder)}
    return numbered | {f"decoder.{number}": name for number, name in enumerate(decoder)}


class Mapped:
    """Tensors of our network as those of the authors'.

    Args:
        network: ours.
        blocks: names of the blocks, ours to the authors'; see ``keys``.
        within: names of modules within a block, ours to the authors'.
        outside: the same of all other modules.
        heads: of the attention; the authors interleave queries, keys and values.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        blocks: Mapping[str, str],
        within: Mapping[str, str],
        outside: Mapping[str, str],
        heads: int,
    ) -> None:
        self.network, self.heads = network, heads
        modules = {
            f"{block}.{name}": f"{key}.{inner}" for block, key in blocks.items() for name, inner in within.items()
        }
        self.modules = {**modules, **outside}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """The authors' name of each of our parameters and lasting buffers."""
        for name, tensor in self.network.state_dict(keep_vars=True).items():
            module = name if name in self.modules else name.rpartition(".")[0]
            yield self.modules[module] + name[len(module) :], tensor

    def theirs(self, name: str, values: Array) -> Array:
        """Our tensor as the authors shape it."""
        if name.endswith("gain"):
            # Theirs are scalars, which ZeRO cannot shard.
            return values.reshape(())
        if "qkv" in name:
            values = values.reshape(3, self.heads, -1, *values.shape[1:]).transpose(1, 2, 0, *range(3, values.ndim + 2))
            values = values.reshape(-1, *values.shape[3:])
        is_convolution = "qkv" in name or "proj" in name
        return values[..., None, None] if is_convolution and values.ndim == 2 else values

    def ours(self, name: str, values: Array, like: Tensor) -> Tensor:
        """The authors' tensor as we shape it."""
        if "qkv" in name:
            values = values.reshape(self.heads, -1, 3, *values.shape[1:])
            values = values.transpose(2, 0, 1, *range(3, values.ndim))
        return torch.from_numpy(np.ascontiguousarray(values)).reshape(like.shape)

    @torch.no_grad()
    def fill_(self) -> None:
        """Gives our network the weights that the authors' had."""
        for name, tensor in self:
            shape = self.theirs(name, np.zeros(tuple(tensor.shape))).shape
            tensor.copy_(self.ours(name, parameter(name, shape), tensor))

    def gradients(self) -> dict[str, Array]:
        """The gradients, by the authors' names and in their shapes."""
        return {
            name: self.theirs(name, tensor.grad.double().numpy())
            for name, tensor in self
            if isinstance(tensor, nn.Parameter) and tensor.grad is not None
        }
