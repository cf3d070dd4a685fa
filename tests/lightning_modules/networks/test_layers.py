"""Layers against plain formulas, and gradient checkpointing against none."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.batch_norm import ConditionalBatchNorm2d
from lightning_modules.networks.layers import (
    DownBlock,
    SelfAttention,
    UpBlock,
    add_spectral_norm_,
    check_attention_resolution,
    checkpointed,
    stage_channels,
)


@pytest.mark.parametrize("double_backward", [False, True])
def test_attention_is_the_papers_formula(double_backward: bool) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(16, double_backward=double_backward)
    x = torch.randn(2, 16, 8, 6)
    assert torch.equal(layer(x), x), "gamma starts at 0"
    layer.gamma.data.fill_(0.7)

    maps = x.double().numpy()
    f, g, h, v = (
        module.weight.detach().double().numpy()[:, :, 0, 0]
        for module in (layer.key, layer.query, layer.value, layer.output)
    )

    def pooled(weight: np.ndarray, image: np.ndarray) -> np.ndarray:
        projected = np.einsum("oc,chw->ohw", weight, image)
        return projected.reshape(len(weight), 4, 2, 3, 2).max((2, 4)).reshape(len(weight), -1)

    for image, ours in zip(maps, layer(x).detach().double().numpy(), strict=True):
        keys, values = pooled(f, image), pooled(h, image)
        for row in range(8):
            for column in range(6):
                weights = np.exp(keys.T @ (g @ image[:, row, column]))
                expected = image[:, row, column] + 0.7 * v @ (values @ (weights / weights.sum()))
                np.testing.assert_allclose(ours[:, row, column], expected, atol=1e-5)


def test_attention_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(8, double_backward=True).double()
    layer.gamma.data.fill_(0.7)
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)


def test_attention_needs_channels_to_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 8 channels, not 12; choose another width"):
        SelfAttention(12)


def test_conditional_batch_norm_is_batch_norm_with_the_labels_affine() -> None:
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(5, num_classes=3)
    layer.scale.data.normal_()
    layer.shift.data.normal_()
    x, labels = torch.randn(8, 5, 4, 4) * 3 + 1, torch.tensor([0, 2, 1, 1, 0, 2, 2, 2])
    ours = layer(x, labels).detach().numpy()
    maps = x.double().numpy()
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
    normalised = (maps - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    for row, label in enumerate(labels.tolist()):
        scale, shift = layer.scale[label].detach().numpy(), layer.shift[label].detach().numpy()
        np.testing.assert_allclose(
            ours[row], normalised[row] * scale[:, None, None] + shift[:, None, None], atol=1e-5, rtol=1e-4
        )
    np.testing.assert_allclose(layer.running_mean, 0.1 * mean, rtol=1e-4)  # type: ignore[arg-type]


class OneOfEach(nn.Module):
    """Every kind of layer that spectral norm is for."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.linear = nn.Linear(6, 4 * 4 * 4)
        self.up = nn.ConvTranspose2d(4, 7, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.down = nn.Conv2d(7, 3, 4, stride=2, padding=1)

    def forward(self, labels: Tensor) -> Tensor:
        return self.down(self.norm(self.up(self.linear(self.embedding(labels)).unflatten(1, (4, 4, 4)))))


def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    torch.manual_seed(0)
    network = OneOfEach()
    bare = copy.deepcopy(network)
    add_spectral_norm_(network)
    with torch.no_grad():
        for _ in range(200):  # power iterations
            network(torch.arange(5))
    for name, output_dimension in (("embedding", 0), ("linear", 0), ("up", 1), ("down", 0)):
        weight = getattr(network, name).weight.detach().movedim(output_dimension, 0).flatten(1).numpy()
        original = getattr(bare, name).weight.detach().movedim(output_dimension, 0).flatten(1).numpy()
        top = np.linalg.svd(original, compute_uv=False)[0]
        assert top != pytest.approx(1, rel=0.05)
        np.testing.assert_allclose(np.linalg.svd(weight, compute_uv=False)[0], 1, rtol=1e-3)
        np.testing.assert_allclose(weight, original / top, rtol=2e-3, atol=1e-5)


def test_spectral_norm_survives_copies_and_checkpoints() -> None:
    torch.manual_seed(0)
    network, other = OneOfEach(), OneOfEach()
    bare = set(network.state_dict())
    add_spectral_norm_(network)
    add_spectral_norm_(other)
    network(torch.arange(5))
    added = set(network.state_dict()) - bare
    assert {key for key in added if key.startswith("up.")} == {
        "up.parametrizations.weight.original",
        "up.parametrizations.weight.0._u",
        "up.parametrizations.weight.0._v",
    }
    twin = copy.deepcopy(network)
    other.load_state_dict(network.state_dict())
    for module in (network, twin, other):
        module.eval()
    outputs = [module(torch.arange(5)) for module in (network, twin, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_checkpointing_changes_neither_gradients_nor_buffers(spectral_norm: bool, twice: bool) -> None:
    """Two forwards before the backward, as of a discriminator on real and generated images."""

    def train(enabled: bool) -> tuple[list[Tensor], list[Tensor], int]:
        torch.manual_seed(0)
        up, down = UpBlock(8, 8, num_classes=3), DownBlock(8, 16, attention=True)
        blocks = nn.ModuleList([up, down])
        nn.init.constant_(down.attention.get_parameter("gamma"), 0.5)
        if spectral_norm:
            add_spectral_norm_(blocks)
        calls = []
        up.register_forward_pre_hook(lambda *_: calls.append(1))
        first = torch.randn(4, 8, 4, 4, requires_grad=True)
        second, labels = torch.randn(4, 8, 4, 4), torch.tensor([0, 1, 2, 0])
        outputs = []
        for x in (first, second):
            middle = checkpointed(up, x, labels, enabled=enabled)
            outputs.append(checkpointed(down, middle, enabled=enabled))
        loss = (outputs[0] - 2 * outputs[1]).square().mean()
        if twice:
            (gradient,) = torch.autograd.grad(outputs[0].sum(), first, create_graph=True)
            loss = loss + gradient.square().sum()
        loss.backward()
        gradients = [parameter.grad for parameter in blocks.parameters() if parameter.grad is not None]
        assert len(gradients) == len(list(blocks.parameters()))
        assert first.grad is not None
        return [first.grad, *gradients], list(blocks.buffers()), len(calls)

    plain, recomputed = train(False), train(True)
    for ours, expected in zip(recomputed[0] + recomputed[1], plain[0] + plain[1], strict=True):
        assert torch.equal(ours, expected)
    assert plain[2] == 2
    assert recomputed[2] > 2, "nothing was recomputed"


def test_checkpointing_keeps_less() -> None:
    block = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)))
    x = torch.randn(1, 4, 16, 16, requires_grad=True)

    def kept(enabled: bool) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            checkpointed(block, x, enabled=enabled)
        return sum(sizes.values())

    assert kept(True) <= x.numel()
    assert kept(False) >= 6 * x.numel()


def test_checkpointing_goes_through_the_compiler() -> None:
    torch.manual_seed(0)
    block = UpBlock(4, 4)
    compiled = copy.deepcopy(block)
    x = torch.randn(2, 4, 4, 4)
    function = torch.compile(lambda x: 2 * checkpointed(compiled, x, enabled=True), backend="eager")
    function(x).sum().backward()
    (2 * block(x)).sum().backward()
    for ours, expected in zip(compiled.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)
    for mine, other in zip(compiled.buffers(), block.buffers(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("normalization", "reference"),
    [
        ("layer", lambda x: F.layer_norm(x, x.shape[1:])),
        (
            "batch",
            lambda x: (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt(),
        ),
        ("none", lambda x: x),
    ],
)
def test_down_block_is_convolution_normalisation_leaky_relu(normalization, reference) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    block = DownBlock(3, 8, normalization=normalization)
    x = torch.randn(4, 3, 8, 8)
    convolved = F.conv2d(x, block.convolution.weight, block.convolution.bias, stride=2, padding=1)
    normalised = reference(convolved)
    torch.testing.assert_close(block(x), torch.maximum(normalised, 0.2 * normalised), atol=1e-5, rtol=1e-4)


def test_stage_channels_double_to_eight_times_the_width() -> None:
    assert stage_channels(32, 16) == [16, 32, 64]
    assert stage_channels(64, 64) == [64, 128, 256, 512]
    assert stage_channels(256, 32) == [32, 64, 128, 256, 256, 256]


def test_bad_options_are_named_with_their_remedy() -> None:
    with pytest.raises(ValueError, match="resolution 48 is not supported; choose one of 32, 64, 128, 256"):
        stage_channels(48, 64)
    with pytest.raises(ValueError, match="width 0 is not positive"):
        stage_channels(64, 0)
    with pytest.raises(ValueError, match=r"attention_resolution 64 .* 64 px network; choose 0 .* one of 8, 16, 32"):
        check_attention_resolution(64, 64)
    with pytest.raises(ValueError, match="normalization 'group' is unknown; choose batch, layer or none"):
        DownBlock(3, 8, normalization="group")  # type: ignore[arg-type]
