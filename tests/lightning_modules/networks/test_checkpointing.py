"""Gradient checkpointing against none."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks.blocks import DownBlock, UpBlock
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.spectral_norm import add_spectral_norm_


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.slow
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


@pytest.mark.slow
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
