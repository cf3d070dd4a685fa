"""BigGAN's networks: outputs, losses and gradients of the authors' code, sizes, beginnings and precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.gan.biggan import truncated
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.networks.batch_norm import ConditionalBatchNorm2d
from lightning_modules.networks.biggan import (
    BigGANDiscriminator,
    BigGANDiscriminatorOptions,
    BigGANGenerator,
    BigGANGeneratorOptions,
)
from tests.formulas import set_weights_, waves

#: Outputs, losses and gradients of ajbrock/BigGAN-PyTorch in float64, run once on a CPU; none of its code is here.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "biggan.npz"
COUNT, CLASSES = 4, 3
LABELS = torch.arange(COUNT) % CLASSES
CASES: dict[str, dict[str, Any]] = {
    "shared": {"resolution": 64, "latent_dim": 20, "shared_dim": 6, "hierarchical": True, "attention_resolution": 16},
    "table": {"resolution": 32, "latent_dim": 7, "shared_dim": 0, "hierarchical": False, "attention_resolution": 0},
}


def networks(
    *,
    resolution: int = 32,
    latent_dim: int = 8,
    classes: int = CLASSES,
    spectral_norm: bool = True,
    attention_resolution: int = 16,
    gradient_checkpointing: bool = False,
    **options: Any,
) -> tuple[BigGANGenerator, BigGANDiscriminator]:
    torch.manual_seed(0)
    common: dict[str, Any] = {
        "width": 8,
        "spectral_norm": spectral_norm,
        "attention_resolution": attention_resolution,
        "gradient_checkpointing": gradient_checkpointing,
    }
    generator = BigGANGeneratorOptions(**common, **options)
    sizes = {"resolution": resolution, "num_classes": classes}
    return (
        BigGANGenerator(generator, latent_dim=latent_dim, **sizes),
        BigGANDiscriminator(BigGANDiscriminatorOptions(**common), **sizes),
    )


def by_plain_name(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name.replace("parametrizations.weight.original", "weight"): p for name, p in network.named_parameters()}


def given_weights(case: dict[str, Any], dtype: torch.dtype) -> list[tuple[nn.Module, list[str]]]:
    """Both networks with the weights by formula and exact singular vectors; and the order of their parameters."""
    found = []
    for plain, network in zip(networks(**case, spectral_norm=False), networks(**case), strict=True):
        set_weights_(plain.double())
        for module in plain.modules():
            if isinstance(module, ConditionalBatchNorm2d):
                module.scale.data += 1
        parameters = by_plain_name(network.to(dtype))
        for name, value in plain.named_parameters():
            parameters[name].data.copy_(value)
        for module in network.modules():
            if hasattr(module, "parametrizations"):
                norm, weight = module.parametrizations.weight[0], module.parametrizations.weight.original
                left, _, right = torch.linalg.svd(weight.detach().double().flatten(1), full_matrices=False)
                norm._u.copy_(left[:, 0])
                norm._v.copy_(right[0])
        found.append((network, [name for name, _ in plain.named_parameters()]))
    return found


def gradient_sums(network: nn.Module, order: list[str]) -> Tensor:
    parameters = by_plain_name(network)
    gradients = [parameters[name].grad.double() for name in order]  # type: ignore[union-attr]
    return torch.stack([(g * waves(*g.shape, number=number + 0.5)).sum() for number, g in enumerate(gradients)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_all_is_that_of_the_authors(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case = CASES[name]
    (generator, generators), (discriminator, discriminators) = given_weights(case, dtype)
    side = case["resolution"]
    z = waves(COUNT, case["latent_dim"], number=1, scale=1.5).to(dtype)
    real = waves(COUNT, 3, side, side, number=2).to(dtype)
    found: dict[str, Tensor] = {}
    images, logits = generator(z, LABELS), discriminator(real, LABELS)
    assert images.dtype == logits.dtype == dtype
    found["images"], found["logits"] = images.flatten()[::37], logits
    loss = discriminator_loss("hinge", logits, discriminator(images.detach(), LABELS))
    loss.backward()
    found["discriminator"], found["discriminator_gradients"] = loss, gradient_sums(discriminator, discriminators)
    loss = generator_loss("hinge", discriminator(generator(z, LABELS), LABELS))
    generator.zero_grad()
    loss.backward()
    found["generator"], found["generator_gradients"] = loss, gradient_sums(generator, generators)
    with np.load(REFERENCE) as reference:
        for key, ours in found.items():
            expected = torch.from_numpy(np.asarray(reference[f"{name}/{key}"]))
            apart = (ours.detach().double() - expected).abs().max() / expected.abs().max()
            # Sums of gradients of either sign lose a digit in float32.
            within = 10 * tolerance if key.endswith("gradients") and dtype == torch.float32 else tolerance
            assert apart <= within, f"{key}: {apart:.2g}"


def test_the_published_sizes() -> None:
    # The authors' scripts for ImageNet at 128 px and CIFAR-10, counted in their code.
    imagenet = {"width": 96, "attention_resolution": 64}
    cifar: dict[str, Any] = {"shared_dim": 0, "hierarchical": False}
    with torch.device("meta"):
        made = [
            BigGANGenerator(BigGANGeneratorOptions(**imagenet), resolution=128, num_classes=1000),
            BigGANDiscriminator(BigGANDiscriminatorOptions(**imagenet), resolution=128, num_classes=1000),
            BigGANGenerator(BigGANGeneratorOptions(**cifar), latent_dim=128, resolution=32, num_classes=10),
            BigGANDiscriminator(resolution=32, num_classes=10),
        ]
    sizes = [sum(p.numel() for p in network.parameters()) for network in made]
    assert sizes == [70_433_988, 87_982_370, 4_304_387, 4_207_361]


def test_weights_begin_orthogonal_or_normal() -> None:
    for network in networks(spectral_norm=False):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                weight = layer.weight.flatten(1)
                weight = weight if weight.shape[0] <= weight.shape[1] else weight.T
                torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), rtol=0, atol=1e-5)
                assert layer.bias is None or not layer.bias.any()
    generator, _ = networks(spectral_norm=False, initialization="normal")
    assert generator.project.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_part_of_z_is_told_to_a_block_and_goes_no_other_way() -> None:
    generator, _ = networks(classes=0)
    generator.eval()
    z = torch.randn(2, 8)
    seen: list[Tensor] = []
    generator.blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    for number in range(2):
        generator(z)
        assert torch.equal(seen[number], z[:, 4:6])
        z[:, 6:] += 1
    # Without classes and parts there is nothing to tell.
    assert networks(classes=0, hierarchical=False)[0](z).shape == (2, 3, 32, 32)


def test_truncated_numbers_are_those_of_scipy_in_the_same_order() -> None:
    from scipy import stats

    z = torch.linspace(-6, 6, 101, dtype=torch.float64)
    expected = stats.truncnorm.ppf(stats.norm.cdf(z.numpy()), -2, 2)
    torch.testing.assert_close(truncated(z, 2.0), torch.from_numpy(expected), rtol=0, atol=1e-9)
    many = truncated(torch.randn(20_000, generator=torch.Generator().manual_seed(0)), 2.0)
    assert many.abs().max() <= 2
    assert stats.kstest(many.numpy(), stats.truncnorm(-2, 2).cdf).pvalue > 0.01


def test_recomputed_blocks_are_the_same() -> None:
    for plain, again in zip(networks(), networks(gradient_checkpointing=True), strict=True):
        again.load_state_dict(plain.state_dict())
        given = torch.randn(COUNT, 8) if isinstance(plain, BigGANGenerator) else torch.randn(COUNT, 3, 32, 32)
        for network in (plain, again):
            network(given, LABELS).square().sum().backward()
        for ours, theirs in zip(plain.parameters(), again.parameters(), strict=True):
            assert ours.grad is not None
            assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_sixteen_bits_come_near() -> None:
    generator, discriminator = networks()
    z, images = torch.randn(COUNT, 8), torch.randn(COUNT, 3, 32, 32).tanh()
    exact = generator(z, LABELS), discriminator(images, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = generator(z, LABELS), discriminator(images, LABELS)
    for some, others in zip(exact, rough, strict=True):
        assert others.dtype == torch.float32
        assert (some - others).abs().max() < 0.1 * some.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 10}, "latent_dim is 10; a hierarchical z of 32 px images has 4 equal parts: choose a multiple"),
        ({"shared_dim": 0}, "set generator.shared_dim"),
        ({"resolution": 48}, "resolution 48 is not supported; choose one of 32, 64, 128, 256"),
        ({"attention_resolution": 12}, "attention_resolution 12 is no feature map of a 32 px network"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks(**options)
