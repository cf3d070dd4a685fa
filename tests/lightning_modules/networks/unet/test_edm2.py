"""EDM2's U-Net against its authors' code, and what keeps its magnitudes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.unet.edm2 import EDM2Options, EDM2UNet
from lightning_modules.networks.unet.magnitudes import MPBlock, MPConv, concatenate, unit_magnitude
from tests.lightning_modules.networks.unet.formula import Mapped, inputs, keys
from tests.lightning_modules.networks.unet.parity import assert_differentiates_forward, assert_equals_the_authors

BLOCK = {
    "main": "conv_skip",
    "conv_in": "conv_res0",
    "condition": "emb_linear",
    "condition_gain": "emb_gain",
    "conv_out": "conv_res1",
    "attention.to_qkv": "attn_qkv",
    "attention.project": "attn_proj",
}
OUTSIDE = {
    "fourier.frequencies": "unet.emb_fourier.freqs",
    "fourier.phases": "unet.emb_fourier.phases",
    "embed_noise": "unet.emb_noise",
    "embed_classes": "unet.emb_label",
    "conv_in": "unet.enc.16x16_conv",
    "conv_out": "unet.out_conv",
    "out_gain": "unet.out_gain",
    "logvar_fourier.frequencies": "logvar_fourier.freqs",
    "logvar_fourier.phases": "logvar_fourier.phases",
    "logvar_linear": "logvar_linear",
}


def small(width: int = 16, **options: Any) -> EDM2UNet:
    """A network of 16 px with attention and 4 classes."""
    fields: dict[str, Any] = {"blocks": 1, "attention_resolutions": (8,), "head_channels": width, "logvar_channels": 16}
    torch.manual_seed(0)
    chosen = EDM2Options(width, (1, 2), **(fields | options))
    return EDM2UNet(chosen, resolution=16, in_channels=3, out_channels=2, num_classes=4)


def mapped(network: EDM2UNet) -> Mapped:
    blocks = {ours: f"unet.{theirs}" for ours, theirs in keys(16, 2, 1).items()}
    return Mapped(network, blocks=blocks, within=BLOCK, outside=OUTSIDE, heads=2)


def magnitude(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_those_of_the_authors_code(dtype: torch.dtype) -> None:
    assert_equals_the_authors("edm2", mapped(small()), dtype, augment=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normalised_weights_are_those_of_the_authors_training(dtype: torch.dtype) -> None:
    """Their forward normalises what is stored before it computes; ours is told to."""
    network = small()
    assert_equals_the_authors(
        "edm2-training", mapped(network), dtype, augment=False, prepare=network.normalize_weights_
    )


@pytest.mark.parametrize(("width", "expected"), [(128, 124_713_253), (192, 280_212_837)])
def test_parameters_of_the_papers_networks(width: int, expected: int) -> None:
    """EDM2-XS and EDM2-S for latents of ImageNet at 512 px: the authors' code has as many; 125 and 280 million."""
    with torch.device("meta"):
        network = EDM2UNet(EDM2Options(width), resolution=64, in_channels=4, out_channels=4, num_classes=1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_magnitudes_are_near_one_at_the_start() -> None:
    network = small(width=64, blocks=2)
    seen: dict[str, float] = {}

    def listen(name: str) -> Any:
        return lambda module, inputs, output: seen.update({name: magnitude(output)})

    for name, module in network.named_modules():
        if isinstance(module, MPBlock) or name in ("conv_in", "embed_noise", "embed_classes"):
            module.register_forward_hook(listen(name))
    torch.manual_seed(1)
    out = network(torch.randn(8, 3, 16, 16), torch.randn(8), torch.arange(8) % 4)
    assert len(seen) == 3 + len(network.encoder) + len(network.decoder)
    for name, value in seen.items():
        assert value == pytest.approx(1, abs=0.35), (name, value)
    assert not out.any()
    weights = [module.weight for module in network.modules() if isinstance(module, MPConv)]
    for weight in weights:
        assert weight.square().flatten(1).mean(1).sqrt().allclose(torch.tensor(1.0), atol=0.01)


def test_normalising_stored_weights_changes_no_output() -> None:
    network = small().double()
    images, noise, labels, _ = inputs(3, 16, torch.float64)
    network.out_gain.data.fill_(1.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    network(images, noise, labels).square().mean().backward()
    optimizer.step()
    before = network(images, noise, labels)
    weight = network.conv_in.weight.detach().clone()
    network.normalize_weights_()
    assert not torch.allclose(network.conv_in.weight, weight, rtol=1e-3)
    # But for the 1e-4 that the authors add to lengths.
    torch.testing.assert_close(network(images, noise, labels), before, rtol=1e-4, atol=1e-5)


def test_forward_changes_no_weight() -> None:
    network = small().train()
    stored = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images, noise, labels, _ = inputs(3, 16, torch.float32)
    network(images, noise, labels).sum().backward()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


def test_gradient_checkpointing_trains_the_same() -> None:
    def step(gradient_checkpointing: bool) -> list[Tensor]:
        network = small(dropout=0.2, gradient_checkpointing=gradient_checkpointing)
        mapped(network).fill_()
        torch.manual_seed(1)
        network(*inputs(3, 16, torch.float32)[:3]).square().sum().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    for ours, expected in zip(step(True), step(False), strict=True):
        assert torch.equal(ours, expected)


def test_forward_differentiation_is_the_difference_quotient() -> None:
    network = small().double()
    mapped(network).fill_()
    assert_differentiates_forward(network)


def test_the_label_after_the_last_is_no_class() -> None:
    network = small()
    mapped(network).fill_()
    images, noise, labels, _ = inputs(3, 16, torch.float32)
    out = network(images, noise, labels)
    assert network.embed_classes is not None
    network.embed_classes.weight.data.zero_()
    without = network(images, noise, labels)
    assert torch.equal(out[2], without[2])
    assert not torch.allclose(out[:2], without[:2], atol=1e-3)


def test_autocast_ends_in_float32_and_is_close() -> None:
    network = small()
    mapped(network).fill_()
    arguments = inputs(3, 16, torch.float32)[:3]
    dtypes = set()
    for block in (*network.encoder, *network.decoder):
        block.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = network(*arguments)
        logvar = network.logvar(arguments[1])
    (out.square().mean() + logvar.sum()).backward()
    assert dtypes == {torch.bfloat16}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    exact = network(*arguments)
    assert out.dtype == torch.float32
    assert (out - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()
    assert torch.equal(logvar, network.logvar(arguments[1]))


def test_activations_are_clipped() -> None:
    network = small()
    block = network.decoder[1]
    x = torch.full((1, 32, 8, 8), 1e4)
    assert block(x, torch.zeros(1, 32)).abs().max() == 256


def test_magnitudes_of_pixels_and_of_maps_side_by_side() -> None:
    torch.manual_seed(0)
    pixels = unit_magnitude(5 * torch.randn(2, 64, 3, 3), dim=1)
    torch.testing.assert_close(pixels.square().mean(1).sqrt(), torch.ones(2, 3, 3), atol=1e-4, rtol=0)
    narrow, wide = torch.randn(4, 8, 16, 16), torch.randn(4, 56, 16, 16)
    both = concatenate(narrow, wide)
    assert magnitude(both) == pytest.approx(1, abs=0.05)
    assert both[:, :8].square().sum().item() == pytest.approx(both[:, 8:].square().sum().item(), rel=0.1)


def test_wrong_options_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match="takes no augmentation label; set augment_dim to 0, not 9"):
        EDM2UNet(resolution=64, in_channels=3, out_channels=3, augment_dim=9)
    with pytest.raises(ValueError, match="at 8 px 32 channels, no multiple of head_channels 64"):
        small(head_channels=64)
    plain = small(logvar_channels=0)
    assert not [name for name in plain.state_dict() if name.startswith("logvar")]
    with pytest.raises(ValueError, match="without logvar_channels has no learned uncertainty; set logvar_channels"):
        plain.logvar(torch.zeros(3))
