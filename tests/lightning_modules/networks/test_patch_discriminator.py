"""The discriminator of patches against pix2pix's code (as CompVis/taming-transformers has it), and what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.patch_discriminator import PatchDiscriminator, PatchDiscriminatorOptions, PatchNorm
from tests.formulas import gradient_sums, set_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "autoencoder_kl.npz"


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_outputs_and_gradients_are_those_of_the_authors(mode: str, dtype: torch.dtype, tolerance: float) -> None:
    network = PatchDiscriminator(PatchDiscriminatorOptions(8)).to(dtype)
    set_weights_(network)
    if mode == "eval":
        # With the statistics that a forward of training left behind.
        network(waves(2, 3, 32, 32, number=1).to(dtype))
    network.train(mode == "train")
    x = waves(2, 3, 32, 32, number=1).to(dtype).requires_grad_()
    output = network(x)
    (output * waves(*output.shape, number=2)).sum().backward()
    assert x.grad is not None
    with np.load(REFERENCE) as reference:
        for key, ours in {"output": output, "gradient": x.grad, "sums": gradient_sums(network)}.items():
            expected = torch.from_numpy(reference[f"patch/{mode}/{key}"])
            assert (ours.detach().double() - expected).abs().max() <= tolerance * expected.abs().max(), key


@pytest.mark.parametrize(("fixture", "key", "width"), [("cyclegan", "patch", 8), ("cut", "discriminator", 4)])
def test_with_instance_norm_they_are_cyclegans_and_with_blurs_cuts(fixture: str, key: str, width: int) -> None:
    options = PatchDiscriminatorOptions(width, normalization="instance", antialias=fixture == "cut")
    network = PatchDiscriminator(options).double()
    set_weights_(network)
    x = waves(2, 3, 24, 24, number=1).requires_grad_()
    output = network(x)
    (output * waves(*output.shape, number=2)).sum().backward()
    assert x.grad is not None
    with np.load(REFERENCE.with_name(f"{fixture}.npz")) as reference:
        for part, ours in {"output": output, "gradient": x.grad, "sums": gradient_sums(network)}.items():
            expected = torch.from_numpy(reference[f"{key}/{part}"])
            assert (ours.detach() - expected).abs().max() <= 1e-10 * expected.abs().max(), part


def test_the_published_size() -> None:
    with torch.device("meta"):
        network = PatchDiscriminator()
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_765_633
    narrow = PatchDiscriminator(PatchDiscriminatorOptions(4))
    assert narrow(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert narrow(torch.zeros(1, 3, 24, 24)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("layers", "antialias", "patch"),
    [(2, False, 34), (3, False, 70), (4, False, 142), (2, True, 40), (3, True, 84), (4, True, 172)],
)
def test_a_logit_sees_one_patch(layers: int, antialias: bool, patch: int) -> None:
    network = PatchDiscriminator(PatchDiscriminatorOptions(4, layers, "none", antialias=antialias))
    x = torch.randn(1, 3, 200, 200, requires_grad=True)
    logits = network(x)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0)
    for axis in (0, 1):
        places = seen.sum(axis).nonzero()
        assert places.max() - places.min() + 1 == patch


@pytest.mark.parametrize(("normalization", "alone"), [("batch", False), ("instance", True), ("none", True)])
def test_only_batch_norm_lets_pictures_see_each_other(normalization: PatchNorm, alone: bool) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(PatchDiscriminatorOptions(8, normalization=normalization))
    images = torch.randn(3, 3, 48, 48)
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-5) == alone


def test_instance_norm_is_torchs_and_full_precision_under_autocast() -> None:
    block = PatchDiscriminator(PatchDiscriminatorOptions(8, normalization="instance")).blocks[1]
    expected = nn.Sequential(block.convolution, nn.InstanceNorm2d(16), nn.LeakyReLU(0.2))
    x = torch.randn(2, 8, 16, 16) + 30
    torch.testing.assert_close(block(x), expected(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert block(x).dtype == torch.bfloat16


def test_gradient_checkpointing_trains_the_same() -> None:
    def state(gradient_checkpointing: bool) -> list[Tensor]:
        torch.manual_seed(0)
        options = PatchDiscriminatorOptions(8, spectral_norm=True, gradient_checkpointing=gradient_checkpointing)
        network = PatchDiscriminator(options)
        network(torch.randn(2, 3, 32, 32)).square().sum().backward()
        return [*(parameter.grad for parameter in network.parameters()), *network.buffers()]  # type: ignore[list-item]

    for ours, expected in zip(state(True), state(False), strict=True):
        assert torch.equal(ours, expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="wants pictures of 24 pixels or more, not 32 x 16: set its layers lower"):
        PatchDiscriminator(PatchDiscriminatorOptions(8))(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match="normalization 'layer' is unknown; choose batch, instance or none"):
        PatchDiscriminator(PatchDiscriminatorOptions(8, normalization="layer"))  # type: ignore[arg-type]
