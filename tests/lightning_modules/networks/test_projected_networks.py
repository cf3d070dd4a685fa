"""Networks of Projected GANs: outputs and gradients of the authors' code; DiffAugment; sizes."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.networks.augment.differentiable import DiffAugment, DiffAugmentOptions, changed
from lightning_modules.networks.fastgan import FastGANGenerator, FastGANOptions
from lightning_modules.networks.projected import STRIDES, FeaturePyramid, ProjectedDiscriminator
from tests.formulas import gradient_sums, set_weights_, waves
from tests.lightning_modules.networks.authors import check_numbers

#: Outputs and gradients of autonomousvision/projected-gan in float64, run once on a CPU; none of its code is here.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "projected.npz"
check = functools.partial(check_numbers, REFERENCE)
COUNT, LATENT, SIDE, CLASSES = 3, 6, 128, 3
CHANNELS, WIDTH = (6, 8, 10, 12), 8
LABELS = torch.arange(COUNT) % CLASSES
TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def set_all_(network: nn.Module) -> None:
    """Weights by a formula, singular vectors that belong to them; batch norms train, spectral norms do not."""
    set_weights_(network)
    network.train()
    for number, module in enumerate(network.modules()):
        if not hasattr(module, "parametrizations"):
            continue
        weight = module.parametrizations.weight.original.data
        matrix = (weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight).flatten(1)
        norm = module.parametrizations.weight[0]
        u = waves(len(matrix), number=number).to(matrix)
        for _ in range(3):
            v = F.normalize(matrix.T @ u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        norm._u.copy_(u)
        norm._v.copy_(v)
        norm.eval()


def generator(lite: bool) -> FastGANGenerator:
    return FastGANGenerator(FastGANOptions(8, lite=lite), latent_dim=LATENT, resolution=SIDE)


def discriminator(classes: int, dtype: torch.dtype = torch.float64) -> ProjectedDiscriminator:
    network = ProjectedDiscriminator(CHANNELS, size=SIDE, width=WIDTH, num_classes=classes).to(dtype)
    for number, buffer in enumerate(network.mixing.buffers()):
        buffer.copy_(waves(*buffer.shape, number=number + 0.1, scale=0.3))
    return network


def maps(number: int) -> list[Tensor]:
    """Feature maps of some images."""
    return [
        waves(COUNT, channels, SIDE // stride, SIDE // stride, number=number + level)
        for level, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True))
    ]


def of_generator(network: FastGANGenerator) -> dict[str, Tensor]:
    """What is compared of a generator with set weights."""
    like = next(network.parameters())
    noise = waves(COUNT, network.noise_size, number=7).to(like) if network.noise_size else None
    images = network(waves(COUNT, LATENT, number=1, scale=1.5).to(like), None, noise)
    (images * waves(*images.shape, number=2).to(like)).mean().backward()
    return {"images": images.flatten()[::97], "gradients": gradient_sums(network)}


def of_discriminator(network: ProjectedDiscriminator) -> dict[str, Tensor]:
    """What is compared of a discriminator with set weights: logits, hinge losses, gradients of weights and maps."""
    like = next(network.parameters())
    real, fake = ([x.to(like) for x in maps(number)] for number in (10, 20))
    labels = LABELS if network.num_classes else None
    fake_logits, real_logits = network(fake, labels), network(real, labels)
    losses = [discriminator_loss("hinge", real_logits, fake_logits)]
    losses[0].backward()
    found = {"logits": real_logits, "gradients": gradient_sums(network)}
    fake = [x.requires_grad_() for x in fake]
    losses.append(generator_loss("hinge", network(fake, labels)))
    losses[1].backward()
    sums = [(x.grad.double() * waves(*x.shape, number=3)).sum() for x in fake]  # type: ignore[union-attr]
    return {**found, "losses": torch.stack(losses), "maps": torch.stack(sums)}


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("lite", [True, False])
def test_the_generator_is_the_authors(lite: bool, dtype: torch.dtype, tolerance: float) -> None:
    network = generator(lite).to(dtype)
    set_all_(network)
    check(of_generator(network), "lite" if lite else "whole", tolerance)


@pytest.mark.parametrize(("classes", "dtype", "tolerance"), [(0, *TOLERANCES[1]), (CLASSES, *TOLERANCES[0])])
def test_the_discriminator_is_the_authors(classes: int, dtype: torch.dtype, tolerance: float) -> None:
    network = discriminator(classes, dtype)
    set_all_(network)
    check(of_discriminator(network), f"classes{classes}", tolerance)


def pictures() -> tuple[Tensor, Tensor]:
    """Images, and the random numbers of their changes."""
    return waves(5, 3, 16, 12, number=4), waves(5, 8, number=5, scale=0.4999) + 0.5


def test_changes_are_the_authors() -> None:
    images, uniforms = pictures()
    options = DiffAugmentOptions(color=True, translation=0.125, cutout=0.2)
    check({"policy": changed(images, uniforms, options)}, "augment", 1e-12)


def test_changes_are_of_each_image_and_have_a_gradient() -> None:
    class Noise:
        def rand(self, count: int, *shape: int) -> Tensor:
            return pictures()[1][:count]

        def randn(self, count: int, *shape: int) -> Tensor:
            raise AssertionError

    images = pictures()[0].requires_grad_()
    assert DiffAugment(DiffAugmentOptions())(images, Noise()) is images
    everything = DiffAugment(DiffAugmentOptions(color=True, translation=0.2, cutout=0.4, flip=True))
    found = everything(images, Noise())
    torch.testing.assert_close(everything(images[:2], Noise()), found[:2])
    assert torch.autograd.gradcheck(lambda x: everything(x, Noise()), images[:1, :, :6, :6].detach().requires_grad_())
    # The square of 0.4 x 16 by 0.4 x 12 pixels, where it is inside.
    only = changed(torch.ones(1, 1, 16, 12), torch.full((1, 8), 0.5), DiffAugmentOptions(cutout=0.4))
    assert (only == 0).sum() == 6 * 5
    shifted = changed(
        torch.arange(12.0).expand(1, 1, 16, 12), torch.full((1, 8), 0.999), DiffAugmentOptions(translation=0.25)
    )
    assert shifted[0, 0, 0].tolist() == [*range(3, 12), 0, 0, 0]
    mirrored = changed(torch.arange(12.0).expand(1, 1, 16, 12), torch.zeros(1, 8), DiffAugmentOptions(flip=True))
    assert mirrored[0, 0, 0].tolist() == [*range(11, -1, -1)]


def test_mixing_is_fixed_by_its_seed_and_never_trained() -> None:
    torch.manual_seed(1)
    one = ProjectedDiscriminator(CHANNELS, size=64, width=WIDTH)
    torch.manual_seed(2)
    same, other = ProjectedDiscriminator(CHANNELS, size=64), ProjectedDiscriminator(CHANNELS, size=64, width=8, seed=1)
    assert not list(one.mixing.parameters())
    assert {f"mixing.{name}" for name, _ in one.mixing.named_buffers()} <= one.state_dict().keys()
    assert not torch.equal(one.mixing.channel_weight_0, other.mixing.channel_weight_0)
    again = ProjectedDiscriminator(CHANNELS, size=64, width=WIDTH)
    for ours, theirs in zip(one.mixing.buffers(), again.mixing.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert same.mixing.channels == [64, 64, 128, 256]


@pytest.mark.parametrize("size", [64, 96, 128, 224, 256])
def test_logits_of_every_size(size: int) -> None:
    layers = [nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 5, 2, stride=2), nn.Conv2d(5, 6, 2, 2), nn.Conv2d(6, 7, 2, 2)]
    pyramid = FeaturePyramid(layers, (1, 2, 3, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    found = pyramid(torch.rand(2, 1, size, size))
    assert [x.shape[1:] for x in found] == [(4 + level, size // s, size // s) for level, s in enumerate(STRIDES)]
    logits = ProjectedDiscriminator((4, 5, 6, 7), size=size, width=4)(found)
    assert logits.shape[0] == 2
    if size == 224:
        assert logits.shape[1] == 4 * 16
    with pytest.raises(ValueError, match="feature_size is 100"):
        ProjectedDiscriminator((4, 5, 6, 7), size=100)


def test_images_of_every_size_and_recomputed_blocks() -> None:
    for side in (16, 64, 256):
        options = FastGANOptions(8)
        network = FastGANGenerator(options, latent_dim=4, resolution=side, channels=1, num_classes=2)
        images = network(torch.randn(2, 4), torch.tensor([0, 1]), torch.randn(2, network.noise_size))
        assert images.shape == (2, 1, side, side)
    again = FastGANGenerator(FastGANOptions(8, gradient_checkpointing=True), latent_dim=4, resolution=16, num_classes=2)
    plain = FastGANGenerator(FastGANOptions(8), latent_dim=4, resolution=16, num_classes=2)
    again.load_state_dict(plain.state_dict())
    z, labels = torch.randn(4, 4), torch.tensor([0, 1, 1, 0])
    for network in (plain, again):
        network(z, labels).square().sum().backward()
    for ours, theirs in zip(plain.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    with pytest.raises(ValueError, match="resolution is 48"):
        FastGANGenerator(resolution=48)
    with pytest.raises(ValueError, match="width 4 leaves no channel at 1024 px"):
        FastGANGenerator(FastGANOptions(4), resolution=1024)
