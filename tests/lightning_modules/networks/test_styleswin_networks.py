"""StyleSwin's networks: outputs and gradients of the authors' code; windows, wavelets, sizes, precisions."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.augment.differentiable import consistently_changed
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.styleswin.blocks import SwinBlock, WindowAttention, sinusoids
from lightning_modules.networks.styleswin.discriminator import WaveletDiscriminator, WaveletOptions, haar, inverse_haar
from lightning_modules.networks.styleswin.generator import SwinGenerator, SwinOptions
from tests.formulas import gradient_sums, set_weights_, waves
from tests.lightning_modules.networks.authors import check_numbers

#: Outputs and gradients of microsoft/StyleSwin in float64, run once on a CPU; none of its code is here.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "styleswin.npz"
check = functools.partial(check_numbers, REFERENCE)
COUNT, LATENT, SIDE = 4, 12, 32
#: Channels of the sides 4, 8, 16 and 32: 16, 16, 16 and 8.
BASE, MOST = 256, 16
#: Parameters of both networks at 256 px; the authors' code has some more, biases that are added twice.
PUBLISHED = [48_929_512 - 21, 26_211_585 - 512]
TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def generator(*, checkpointing: bool = False) -> SwinGenerator:
    options = SwinOptions(BASE, MOST, gradient_checkpointing=checkpointing)
    network = SwinGenerator(MappingOptions(layers=2, w_dim=LATENT), options, latent_dim=LATENT, resolution=SIDE)
    set_weights_(network, scale=0.3)
    # Its weights are large, as its learning rate is small.
    for layer in network.mapping.layers:
        layer.weight.data *= 100  # type: ignore[union-attr, operator]
    return network


def discriminator(spectral: bool, dtype: torch.dtype = torch.float64) -> WaveletDiscriminator:
    options = WaveletOptions(BASE, MOST, spectral_norm=spectral)
    network = WaveletDiscriminator(options, resolution=SIDE).to(dtype)
    set_weights_(network, scale=0.3 if spectral else 1.0)
    for number, module in enumerate(network.modules()):
        if hasattr(module, "parametrizations"):
            matrix = module.parametrizations.weight.original.data.flatten(1)
            norm, u = module.parametrizations.weight[0], waves(len(matrix), number=number).to(matrix)
            for _ in range(3):
                v = F.normalize(matrix.T @ u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
            norm._u.copy_(u)
            norm._v.copy_(v)
            norm.eval()
    return network


def of_generator(network: SwinGenerator) -> dict[str, Tensor]:
    """What is compared of a generator."""
    like = next(network.parameters())
    images = network(waves(COUNT, LATENT, number=1, scale=1.5).to(like))
    (images * waves(*images.shape, number=2).to(like)).mean().backward()
    return {"images": images.flatten()[::7], "gradients": gradient_sums(network)}


def of_discriminator(network: WaveletDiscriminator) -> dict[str, Tensor]:
    """What is compared of a discriminator: logits, R1, and the gradients of both together."""
    images = waves(COUNT, 3, SIDE, SIDE, number=3).to(next(network.parameters())).requires_grad_()
    logits = network(images)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    r1 = slope.square().flatten(1).sum(1).mean()
    (F.softplus(-logits).mean() + r1).backward()
    return {"logits": logits, "r1": r1[None], "gradients": gradient_sums(network)}


def pictures() -> tuple[Tensor, Tensor]:
    """Images, and the random numbers of their changes."""
    return waves(5, 3, 16, 16, number=4), waves(5, 8, number=5, scale=0.4999) + 0.5


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_the_generator_is_the_authors(dtype: torch.dtype, tolerance: float) -> None:
    torch.set_default_dtype(dtype)
    try:
        check(of_generator(generator().to(dtype)), "generator", tolerance)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("spectral", [True, False])
def test_the_discriminator_is_the_authors(spectral: bool, dtype: torch.dtype, tolerance: float) -> None:
    network = discriminator(spectral, dtype)
    check(of_discriminator(network), "spectral" if spectral else "equalized", tolerance)


def test_changes_for_consistency_are_the_authors() -> None:
    check({"changed": consistently_changed(*pictures())}, "consistency", 1e-12)


def test_wavelets_come_back_and_are_orthogonal() -> None:
    images = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    found = haar(images)
    assert found.shape == (2, 12, 4, 6)
    torch.testing.assert_close(inverse_haar(found), images)
    assert found.square().sum().item() == pytest.approx(images.square().sum().item())
    # Of a constant image nothing but the mean is left.
    flat = haar(torch.ones(1, 1, 4, 4))
    assert flat[:, 0].eq(2).all()
    assert not flat[:, 1:].any()


def test_who_sees_whom() -> None:
    """Plain windows see their own pixels alone; shifted ones across their borders, but not across the image's."""

    def seen_by(shift: int, row: int, column: int) -> Tensor:
        attention = WindowAttention(16, 8, 1, shift=shift)
        x = torch.randn(1, 16, 16, 2, requires_grad=True)
        attention(x, x, x)[0, row, column].sum().backward()
        assert x.grad is not None
        return x.grad[0].abs().sum(-1) > 1e-12

    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:8, 8:] = True
    assert torch.equal(seen_by(0, 3, 9), expected)
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:12, 4:12] = True
    assert torch.equal(seen_by(4, 5, 10), expected)
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:4, 12:] = True
    assert torch.equal(seen_by(4, 0, 15), expected)


def test_half_of_the_heads_is_shifted() -> None:
    block = SwinBlock(16, 16, window=8, heads=4, w_dim=4, mlp_ratio=2.0)
    assert (block.plain.shift, block.shifted.shift, block.plain.heads, block.shifted.heads) == (0, 4, 2, 2)
    assert SwinBlock(16, 8, window=8, heads=4, w_dim=4, mlp_ratio=2.0).shifted.shift == 0


def test_positions_are_waves_of_both_axes() -> None:
    found = sinusoids(8, 4)
    assert found.shape == (4, 4, 8)
    torch.testing.assert_close(found[2, :, 0], torch.tensor([1.0, 2, 3, 4]).sin())
    torch.testing.assert_close(found[:, 2, 6], torch.tensor([1.0, 2, 3, 4]).cos())


def test_recomputed_blocks_are_the_same() -> None:
    plain, again = (of_generator(generator(checkpointing=on)) for on in (False, True))
    assert torch.equal(plain["gradients"], again["gradients"])


def test_sixteen_bits_come_near() -> None:
    network, critic = generator(), discriminator(True, torch.float32)
    z, images = torch.randn(COUNT, LATENT), torch.randn(COUNT, 3, SIDE, SIDE).clamp(-1, 1)
    exact = [network(z), critic(images)]
    with torch.autocast("cpu", torch.bfloat16):
        rough = [network(z), critic(images)]
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_the_published_sizes() -> None:
    # The authors' 256 px, counted in their code.
    with torch.device("meta"):
        made: list[nn.Module] = [
            SwinGenerator(MappingOptions(), SwinOptions(), resolution=256),
            WaveletDiscriminator(resolution=256),
        ]
    assert [sum(p.numel() for p in network.parameters()) for network in made] == PUBLISHED


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="gives 6 channels at 32 px"):
        SwinGenerator(MappingOptions(), SwinOptions(192, 16), resolution=32)
    with pytest.raises(ValueError, match="window is 6; it must divide 8"):
        SwinGenerator(MappingOptions(), SwinOptions(512, 16, window=6), resolution=32)
    with pytest.raises(ValueError, match="needs 16 or more"):
        WaveletDiscriminator(resolution=8)
