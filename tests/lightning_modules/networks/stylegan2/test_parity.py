"""StyleGAN2's networks against the authors' code with the same weights: outputs, gradients, R1 and path lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.penalties import path_lengths, r1_penalty
from lightning_modules.losses.regularizers import PathLength
from lightning_modules.networks.stylegan2.discriminator import Discriminator, DiscriminatorOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import Generator, SynthesisOptions
from tests.lightning_modules.networks.stylegan2.mapped import (
    CLASSES,
    GROUPS,
    MAPPING,
    RESOLUTION,
    WIDTHS,
    figures,
    fill_,
    inputs,
    of_parameters,
    projections,
    same,
    sparse,
)


class Directions:
    """Noise that is given."""

    def __init__(self, directions: Tensor) -> None:
        self.directions = directions

    def randn(self, count: int, *shape: int) -> Tensor:
        assert self.directions.shape == (count, *shape)
        return self.directions

    rand = randn


@pytest.mark.parametrize(("name", "classes"), [("plain", 0), ("conditional", CLASSES)])
def test_the_generator_and_its_path_lengths(name: str, classes: int, dtype: torch.dtype) -> None:
    expected, given = figures(name), inputs()
    network: Any = fill_(
        Generator(
            MappingOptions(**MAPPING), SynthesisOptions(**WIDTHS), latent_dim=8, resolution=32, num_classes=classes
        )
    )
    z, labels, directions = given["z"], given["labels"], given["directions"]
    ws = network.broadcast(network.mapping(z, labels))
    images = network.synthesis(ws)
    same(sparse(images), expected["images"], dtype)
    assert torch.equal(images, network(z, labels))
    truncated = network(z, labels, truncation_psi=0.6, truncation_cutoff=3, noise="none")
    same(sparse(truncated), expected["truncated"], dtype)

    (images * directions).mean().backward(retain_graph=True)
    same(projections(of_parameters(network)), expected["generator_gradients"], dtype)

    same(path_lengths(images, ws, directions), expected["path_lengths"], dtype)
    regularizer: Any = PathLength()
    regularizer.mean.fill_(0.5)
    regularizer(images, ws, Directions(directions)).backward()
    same(projections(of_parameters(network)), expected["path_length_gradients"], dtype)


@pytest.mark.parametrize(("name", "classes"), [("plain", 0), ("conditional", CLASSES), ("straight", 0)])
def test_the_discriminator_and_r1(name: str, classes: int, dtype: torch.dtype) -> None:
    expected, given = figures(name), inputs()
    options = DiscriminatorOptions(
        **WIDTHS, minibatch_group=GROUPS[name], mapping_layers=2, residual=name != "straight"
    )
    network: Any = fill_(Discriminator(options, resolution=RESOLUTION, num_classes=classes))
    images, labels = given["images"], given["labels"]
    logits = network(images, labels)
    same(logits, expected["logits"], dtype)
    F.softplus(-logits).mean().backward()
    same(projections(of_parameters(network)), expected["discriminator_gradients"], dtype)

    penalty = r1_penalty(lambda x: network(x, labels), images)
    same(penalty, expected["r1"].mean(), dtype)
    penalty.backward()
    same(projections(of_parameters(network)), expected["r1_gradients"], dtype)
