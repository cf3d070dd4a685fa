"""R3GAN's networks: outputs of the authors' code, sizes, beginnings and precisions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.r3gan import GAIN, R3Discriminator, R3Generator, R3Options
from tests.formulas import set_weights_, waves

#: Outputs, losses and gradients of brownvc/R3GAN in float64, run once on a CPU; none of its code or weights is here.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "r3gan.npz"
OPTIONS = R3Options(widths=(24, 16, 16), blocks=2, expansion=2, group_width=8)
COUNT, LATENT, SIDE, CLASSES = 4, 8, 16, 3
LABELS = torch.arange(COUNT) % CLASSES


def networks(classes: int = CLASSES, options: R3Options = OPTIONS) -> tuple[R3Generator, R3Discriminator]:
    torch.manual_seed(0)
    generator = R3Generator(options, latent_dim=LATENT, resolution=SIDE, num_classes=classes)
    return generator, R3Discriminator(options, resolution=SIDE, num_classes=classes)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("name", "classes"), [("plain", 0), ("conditional", CLASSES)])
def test_outputs_are_those_of_the_authors(name: str, classes: int, dtype: torch.dtype, tolerance: float) -> None:
    generator, discriminator = networks(classes)
    for network in (generator, discriminator):
        set_weights_(network.to(dtype), scale=0.27)
    images = generator(waves(COUNT, LATENT, number=1, scale=1.5).to(dtype), LABELS)
    logits = discriminator(waves(COUNT, 3, SIDE, SIDE, number=2).to(dtype), LABELS)
    assert images.dtype == logits.dtype == dtype
    with np.load(REFERENCE) as reference:
        for key, ours in {"images": images.flatten()[::7], "logits": logits}.items():
            expected = torch.from_numpy(reference[f"{name}/{key}"])
            assert (ours.detach().double() - expected).abs().max() <= tolerance * expected.abs().max(), key


@pytest.mark.parametrize(
    ("widths", "generator_size", "discriminator_size"),
    # The authors' CIFAR-10 and FFHQ-256, counted in their code.
    [
        ((768, 768, 768, 768), 20_781_952, 21_280_512),
        ((768, 768, 768, 768, 384, 192, 96), 23_057_952, 23_009_568),
    ],
)
def test_the_published_sizes(widths: tuple[int, ...], generator_size: int, discriminator_size: int) -> None:
    options, classes = R3Options(widths=widths), 10 if len(widths) == 4 else 0
    sizes: dict[str, Any] = {"resolution": 4 * 2 ** (len(widths) - 1), "num_classes": classes}
    with torch.device("meta"):
        made = R3Generator(options, **sizes), R3Discriminator(options, **sizes)
    assert [sum(p.numel() for p in network.parameters()) for network in made] == [generator_size, discriminator_size]


def test_weights_begin_as_the_papers() -> None:
    # L^(-1/4) of all blocks, and 0 where each block ends: both networks begin without any of their blocks.
    options = R3Options(widths=(64, 64, 32), blocks=2, group_width=16)
    for network in networks(options=options):
        for name, layer in network.named_modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            fan_in = layer.weight[0].numel()
            if name.endswith("contract"):
                assert not layer.weight.any()
                continue
            gain = GAIN * 6**-0.25 if name.endswith(("expand", "grouped")) else 1.0
            expected = gain / math.sqrt(fan_in)
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.3 if layer.weight.numel() < 500 else 0.06)
        assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))
    generator, _ = networks(options=options)
    bare, _ = networks(options=R3Options((64, 64, 32), 1))
    bare.load_state_dict(generator.state_dict(), strict=False)
    latents = torch.randn(2, LATENT)
    torch.testing.assert_close(bare(latents, LABELS[:2]), generator(latents, LABELS[:2]))
    # Features keep their variance on the way: images of new networks are neither faint nor glaring.
    assert 0.3 < generator(torch.randn(64, LATENT), torch.arange(64) % CLASSES).std() < 2


def moved(network: nn.Module) -> nn.Module:
    """Like ``network``, with blocks that do something."""
    for name, parameter in network.named_parameters():
        if name.endswith("contract.weight"):
            nn.init.normal_(parameter, 0, 0.1)
    return network


def test_recomputed_blocks_are_the_same() -> None:
    for plain, again in zip(
        networks(), networks(options=R3Options((24, 16, 16), 2, 2, 8, gradient_checkpointing=True)), strict=True
    ):
        again.load_state_dict(moved(plain).state_dict())
        given = torch.randn(COUNT, LATENT) if isinstance(plain, R3Generator) else torch.randn(COUNT, 3, SIDE, SIDE)
        for network in (plain, again):
            network(given, LABELS).square().sum().backward()
        for ours, theirs in zip(plain.parameters(), again.parameters(), strict=True):
            assert ours.grad is not None
            assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_sixteen_bits_come_near() -> None:
    generator, discriminator = (moved(network) for network in networks())
    seen: dict[int, torch.dtype] = {}
    for number in (0, 2):
        last: nn.Module = list(generator.stages[number].children())[-1]
        last.register_forward_hook(lambda block, given, out, n=number: seen.update({n: out.dtype}))
    z, images = torch.randn(COUNT, LATENT), torch.randn(COUNT, 3, SIDE, SIDE).clamp(-1, 1)
    exact: list[Tensor] = [generator(z, LABELS), discriminator(images, LABELS)]
    with torch.autocast("cpu", torch.bfloat16):
        rough = [generator(z, LABELS), discriminator(images, LABELS)]
    # The stage at 4 px stays in float32.
    assert seen == {0: torch.float32, 2: torch.bfloat16}
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.03 * theirs.norm()
    whole = [generator.bfloat16()(z, LABELS), discriminator.bfloat16()(images, LABELS)]
    assert all(output.dtype == torch.float32 and output.isfinite().all() for output in whole)


def test_unfit_options_are_named() -> None:
    with pytest.raises(ValueError, match="3 widths are for 4, 8, 16 px; resolution 32 needs one for each side"):
        R3Generator(OPTIONS, resolution=32)
    with pytest.raises(ValueError, match="group_width 7 does not divide the 32 channels inside a block of width 16"):
        R3Discriminator(R3Options((24, 16, 16), group_width=7), resolution=SIDE)
    with pytest.raises(ValueError, match="needs labels"):
        networks()[0](torch.randn(2, LATENT))
