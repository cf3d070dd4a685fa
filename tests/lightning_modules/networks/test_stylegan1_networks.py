"""StyleGAN 1's networks: outputs and gradients of a public reading of the authors' code; growing, sizes, precisions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.stylegan1.discriminator import DiscriminatorOptions, GrowingDiscriminator
from lightning_modules.networks.stylegan1.growing import GrowingOptions, at_detail, first_detail, level_of_detail
from lightning_modules.networks.stylegan1.synthesis import Generator, SynthesisOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from tests.formulas import gradient_sums, set_weights_, waves
from tests.lightning_modules.networks.authors import check_numbers

#: Outputs and gradients of genforce/genforce, which loads the authors' TensorFlow weights, in float64, run once on a
#: CPU, with pixels repeated before a convolution, as the authors do below 128 px; none of its code is here.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "stylegan1.npz"
check = functools.partial(check_numbers, REFERENCE)
COUNT, LATENT, SIDE = 4, 12, 32
#: Channels of the sides 4, 8, 16 and 32: 16, 16, 16 and 8.
BASE, MOST = 256, 16
#: Levels of detail, of each kind; exact in binary.
LEVELS = [0.0, 0.375, 1.0, 1.625, 3.0]
#: Parameters of both networks at 1024 px: the generator's as the authors' README has it.
PUBLISHED = [26_219_627, 23_087_249]
Network = TypeVar("Network", Generator, GrowingDiscriminator)
TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def generator(detail: float) -> Generator:
    options = SynthesisOptions(BASE, MOST)
    network = Generator(MappingOptions(layers=2, w_dim=LATENT), options, latent_dim=LATENT, resolution=SIDE)
    set_weights_(network, scale=1.0)
    # Its weights are large, as its learning rate is small.
    for layer in network.mapping.layers:
        layer.weight.data *= 100  # type: ignore[union-attr, operator]
    for number, (name, buffer) in enumerate(network.named_buffers()):
        if name.endswith("noise_constant"):
            buffer.copy_(waves(*buffer.shape, number=100 + number))
    network.synthesis.grow(detail)
    return network


def discriminator(detail: float) -> GrowingDiscriminator:
    network = GrowingDiscriminator(DiscriminatorOptions(BASE, MOST), resolution=SIDE)
    set_weights_(network, scale=1.0)
    network.grow(detail)
    return network


def inputs() -> tuple[Tensor, Tensor]:
    """Latents and images."""
    return waves(COUNT, LATENT, number=1, scale=1.5), waves(COUNT, 3, SIDE, SIDE, number=3)


def made(make: Callable[[float], Network], detail: float, dtype: torch.dtype) -> Network:
    """A network whose weights were never in less than ``dtype``."""
    torch.set_default_dtype(dtype)
    try:
        return make(detail)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("detail", LEVELS)
def test_the_generator_is_the_authors(detail: float, dtype: torch.dtype, tolerance: float) -> None:
    network = made(generator, detail, dtype)
    images = network(inputs()[0].to(dtype))
    (images * waves(*images.shape, number=2).to(dtype)).mean().backward()
    check({"images": images.flatten()[::7], "gradients": gradient_sums(network)}, f"generator/{detail}", tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("detail", LEVELS)
def test_the_discriminator_is_the_authors(detail: float, dtype: torch.dtype, tolerance: float) -> None:
    network = made(discriminator, detail, dtype)
    images = inputs()[1].to(dtype).requires_grad_()
    logits = network(images)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    r1 = slope.square().flatten(1).sum(1).mean()
    (F.softplus(-logits).mean() + r1).backward()
    found = {"logits": logits, "r1": r1[None], "gradients": gradient_sums(network)}
    check(found, f"discriminator/{detail}", tolerance)


def test_sizes_are_the_published_ones() -> None:
    networks = [Generator(MappingOptions(), SynthesisOptions(), resolution=1024), GrowingDiscriminator(resolution=1024)]
    assert [sum(weight.numel() for weight in network.parameters()) for network in networks] == PUBLISHED


#: What the authors' ``training_schedule`` answers, at 256 px from 8 px on, with 600 and 600 thousand images.
SCHEDULE = {0: 5, 599_999: 5, 900_000: 4.5, 1_200_000: 4, 1_800_000: 4, 2_250_000: 3.25, 5_999_999: 0, 25_000_000: 0}


@pytest.mark.parametrize(("images", "level"), SCHEDULE.items())
def test_the_level_of_detail_is_the_authors(images: int, level: float) -> None:
    assert level_of_detail(GrowingOptions(), 256, images) == pytest.approx(level, abs=1e-5)


def test_other_courses_of_growing() -> None:
    # Nothing grows; steps without fading; one long fading.
    assert level_of_detail(GrowingOptions(32), 32, 0) == 0
    steps = GrowingOptions(8, training_kimg=1, transition_kimg=0)
    assert [level_of_detail(steps, 32, images) for images in (0, 999, 1000, 1999, 2000)] == [2, 2, 1, 1, 0]
    fading = GrowingOptions(8, training_kimg=0, transition_kimg=1)
    assert [level_of_detail(fading, 32, images) for images in (0, 250, 1000, 1500, 9000)] == [2, 1.75, 1, 0.5, 0]


@pytest.mark.parametrize("start", [2, 12, 64])
def test_an_impossible_start_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match=rf"growing.start_resolution is {start}; it must be .* to resolution \(32\)"):
        first_detail(GrowingOptions(start), 32)


def test_growing_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="are both 0"):
        GrowingOptions(8, 0, 0)


def faded_in_numpy(images: np.ndarray, detail: float) -> np.ndarray:
    """The authors' way with real images: smaller data, faded, and its pixels repeated."""
    whole = int(detail)
    for _ in range(whole):
        count, channels, height, width = images.shape
        images = images.reshape(count, channels, height // 2, 2, width // 2, 2).mean((3, 5))
    if detail > whole:
        count, channels, height, width = images.shape
        smaller = images.reshape(count, channels, height // 2, 2, width // 2, 2).mean((3, 5), keepdims=True)
        smaller = np.tile(smaller, (1, 1, 1, 2, 1, 2)).reshape(images.shape)
        images = images + (smaller - images) * (detail - whole)
    return images.repeat(2**whole, 2).repeat(2**whole, 3)


@pytest.mark.parametrize("detail", [0.0, 0.25, 1.0, 1.75, 2.0])
def test_real_images_fade_as_the_authors(detail: float) -> None:
    images = inputs()[1]
    found = at_detail(images, torch.tensor([detail]), 2)
    np.testing.assert_allclose(found.numpy(), faded_in_numpy(images.numpy(), detail), rtol=0, atol=1e-14)


def test_images_have_the_detail_that_they_should() -> None:
    z = inputs()[0]
    for level in range(4):
        images = made(generator, float(level), torch.float64)(z)
        blocks = images.unflatten(3, (-1, 2**level)).unflatten(2, (-1, 2**level))
        assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
        # Half of that would be too much.
        assert level == 3 or not torch.equal(images[..., :: 2 * 2**level], images[..., 2**level :: 2 * 2**level])


def test_the_discriminator_cannot_see_more_than_the_level_of_detail() -> None:
    network = made(discriminator, 1.0, torch.float64)
    images = inputs()[1].requires_grad_()
    (slope,) = torch.autograd.grad(network(images).sum(), images)
    pairs = slope.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    assert slope.any()
    torch.testing.assert_close(pairs, pairs[:, :, :, :1, :, :1].expand_as(pairs))


def test_every_weight_has_a_gradient_at_every_level() -> None:
    for detail in (0.0, 1.5, 3.0):
        networks = [made(make, detail, torch.float32) for make in (generator, discriminator)]
        networks[1](networks[0](inputs()[0].float())).sum().backward()
        for network in networks:
            assert all(weight.grad is not None for weight in network.parameters())


def test_the_level_of_detail_is_in_the_state_and_stays_exact() -> None:
    network = generator(1.3).to(torch.bfloat16)
    assert network.synthesis.detail.dtype == torch.float32
    other = generator(0.0)
    other.load_state_dict(network.state_dict())
    assert other.synthesis.detail == torch.tensor(1.3)


def test_noise_may_be_given_or_left_out() -> None:
    network, z = made(generator, 0.0, torch.float64), inputs()[0]
    synthesis = network.synthesis
    assert synthesis.noise_sides == (4, 4, 8, 8, 16, 16, 32, 32)
    own = [buffer.flatten() for name, buffer in synthesis.named_buffers() if name.endswith("noise_constant")]
    given = network(z, noise=torch.cat(own).expand(COUNT, -1))
    torch.testing.assert_close(given, network(z))
    assert not torch.allclose(network(z, noise="none"), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_close_to_full_precision(dtype: torch.dtype) -> None:
    network, critic = generator(0.5), discriminator(0.5)
    z = inputs()[0].float()
    images = network(z)
    logits = critic(images)
    with torch.autocast("cpu", dtype):
        found, judged = network(z), critic(images)
    assert (found.dtype, judged.dtype) == (torch.float32, torch.float32)
    assert (found - images).abs().mean() < 0.05 * images.abs().mean()
    assert not torch.equal(found, images)
    assert (judged - logits).abs().max() < 0.05 * logits.abs().max()
