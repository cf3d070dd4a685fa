"""Networks whose weights are a formula, which the authors' code was given, too; and what it made of them.

The figures in ``tests/fixtures/stylegan2`` are outputs and gradients of NVlabs/stylegan2-ada-pytorch in float64, run
once on a CPU with its reference operators; none of its code or weights is here. Of a gradient there are two numbers for
each parameter, its products with two formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gesso.common.randomness import mix_key, random_bits, uniforms_of_bits

FIXTURES = Path(__file__).parents[3] / "fixtures" / "stylegan2"
COUNT, RESOLUTION, CLASSES = 4, 32, 3
MAPPING: dict[str, Any] = {"layers": 2, "w_dim": 12}
#: Images whose deviation is taken together. Of two it is |a - b| / 2, whose second derivative fp32 cannot follow at 0.
GROUPS = {"plain": 4, "conditional": 4, "straight": 2}
WIDTHS: dict[str, Any] = {"channel_base": 256, "channel_max": 24}


def formula(shape: tuple[int, ...], number: int) -> Tensor:
    """Uniform numbers of unit variance that are functions of their place and of which tensor it is."""
    places = np.arange(math.prod(shape), dtype=np.uint64)
    values = torch.from_numpy(uniforms_of_bits(random_bits(mix_key(number), places)))
    return ((values * 2 - 1) * math.sqrt(3)).view(shape).to(torch.get_default_dtype())


def fill_(network: nn.Module) -> nn.Module:
    """Gives every parameter and saved buffer its formula, in the order of their names."""
    for number, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        scale = 0.3 if name.endswith(("bias", "noise_strength", "w_avg")) else 1.0
        shift = 1.0 if name.endswith("affine.bias") else 0.0
        # Weights of layers with another learning rate are as much larger.
        size = 100.0 if "mapping.layers" in name and name.endswith("weight") else 1.0
        tensor.copy_(formula(tuple(tensor.shape), number) * scale * size + shift)
    return network


def projections(gradients: Mapping[str, Tensor | None]) -> Tensor:
    """Two products of each gradient with formulas, in the order of names: ``[parameters, 2]``; none is 0."""
    rows = []
    for number, (_, gradient) in enumerate(sorted(gradients.items())):
        if gradient is None:
            rows.append(torch.zeros(2))
            continue
        ways = torch.stack([formula(tuple(gradient.shape), number + 1000 * way) for way in (1, 2)])
        rows.append((ways * gradient).reshape(2, -1).sum(1))
    return torch.stack(rows)


def of_parameters(network: nn.Module) -> dict[str, Tensor | None]:
    """Gradients by name; empties them."""
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    return found


def inputs() -> dict[str, Tensor]:
    """Latents ``[COUNT, 8]``, labels, images and the directions of path lengths."""
    shape = (COUNT, 3, RESOLUTION, RESOLUTION)
    return {
        "z": formula((COUNT, 8), 7),
        "labels": torch.arange(COUNT) % CLASSES,
        "images": formula(shape, 11) * 0.5,
        "directions": formula(shape, 13),
    }


def figures(name: str, folder: Path = FIXTURES) -> dict[str, Tensor]:
    """The authors' figures, float64."""
    with np.load(folder / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def sparse(images: Tensor) -> Tensor:
    """Every 7th number of some images."""
    return images.detach().flatten()[::7]


#: By precision: the largest difference, as a share of the largest figure.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def same(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Checks that what was computed in ``dtype`` is the authors' within its tolerance."""
    apart = (found.detach().double() - expected).abs().max() / expected.abs().max()
    assert apart < TOLERANCES[dtype], f"{apart:.2g}"
