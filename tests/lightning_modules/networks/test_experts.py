"""Experts: one is a plain residual block, sparse dispatch is the mixture of all of them, gates choose as they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.adain import Decoder, DecoderOptions
from lightning_modules.networks.experts import ExpertOptions, Experts, Router, Routing, mixed
from lightning_modules.networks.pruning import pruned_state
from tests.lightning_modules.networks.test_pruning import filled, planted


def reflected(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode="reflect")


def dense_blocks(experts: Experts) -> list[nn.Sequential]:
    """Each expert as layers of torch's own."""
    count = experts.first.count
    width, channels = len(experts.first.weight) // count, experts.first.in_channels
    blocks = []
    for number in range(count):
        block = nn.Sequential(nn.ReLU(), reflected(channels, width), nn.ReLU(), reflected(width, channels))
        for layer, whole in ((block[1], experts.first), (block[3], experts.second)):
            assert whole.bias is not None
            layer.load_state_dict(
                {"weight": whole.weight.chunk(count)[number], "bias": whole.bias.chunk(count)[number]}
            )
        blocks.append(block)
    return blocks


@torch.no_grad()
def test_one_expert_is_the_dense_network_bit_for_bit() -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderOptions(64, experts=ExpertOptions(1, width=24)))
    assert decoder.router is not None
    assert decoder.experts is not None
    plain = Decoder(DecoderOptions(64))
    plain.load_state_dict({name: value for name, value in decoder.state_dict().items() if name.startswith("stages")})
    (block,) = dense_blocks(decoder.experts)
    features = torch.randn(3, 512, 4, 5)
    routing = decoder.router(torch.randn(3, 1024))
    assert torch.equal(routing.shares, torch.ones(3, 1, 1, 1))
    x = plain.stages[0](features)
    x = x + block(x)
    for stage in plain.stages[1:]:
        x = stage(F.interpolate(F.relu(x), scale_factor=2.0, mode="nearest"))
    assert torch.equal(decoder(features, routing), x * 2 - 1)
    # It does something.
    assert (decoder(features, routing) - plain(features)).abs().max() > 1e-3


@pytest.mark.parametrize("chosen", [1, 2])
@pytest.mark.usefixtures("double")
def test_sparse_dispatch_is_the_mixture_of_all_experts(chosen: int) -> None:
    torch.manual_seed(0)
    options = ExpertOptions(4, chosen, width=7)
    router, experts = Router(options, features=6), Experts(options, 5)
    x, vectors = torch.randn(5, 5, 4, 3, requires_grad=True), torch.randn(5, 6)
    routing = router(vectors)
    # Not all rows of one expert, and not all experts at work.
    assert 1 < len(routing.chosen[:, 0].unique()) < 5
    found = experts(x, routing.chosen, routing.shares)

    blocks = dense_blocks(experts)
    weights = F.layer_norm(vectors, (6,)) @ router.weight.T + router.bias
    probabilities = weights.exp() / weights.exp().sum(1, keepdim=True)
    last = probabilities.sort(1, descending=True).values[:, chosen - 1 : chosen]
    mixture = torch.where(probabilities >= last, probabilities, 0.0)
    if chosen == 2:
        mixture = mixture / mixture.sum(1, keepdim=True)
    expected = x + sum(
        (mixture[:, number, None, None, None] * block(x) for number, block in enumerate(blocks)), torch.zeros(())
    )
    torch.testing.assert_close(found, expected)

    target = torch.randn_like(expected)
    ours = torch.autograd.grad((found * target).sum(), [x, router.weight, experts.first.weight, experts.second.weight])
    inner = [(block[1].weight, block[3].weight) for block in blocks]
    flat: list[Tensor] = [weight for pair in inner for weight in pair]  # type: ignore[misc]
    theirs = torch.autograd.grad((expected * target).sum(), [x, router.weight, *flat])
    for mine, wanted in zip(ours, [*theirs[:2], torch.cat(theirs[2::2]), torch.cat(theirs[3::2])], strict=True):
        torch.testing.assert_close(mine, wanted)


def test_loads_are_shares_of_all_choices() -> None:
    chosen = torch.tensor([[0, 1], [0, 3], [1, 0]])
    routing = Routing(chosen, torch.ones(3, 2, 1, 1), torch.full((3, 4), 0.25))
    torch.testing.assert_close(routing.load(), torch.tensor([3, 2, 0, 1]) / 6)


@pytest.mark.usefixtures("double")
def test_routings_are_mixed_place_by_place() -> None:
    torch.manual_seed(0)
    options = ExpertOptions(3, 2, width=4)
    router, experts = Router(options, features=4), Experts(options, 5)
    x, one, two = torch.randn(1, 5, 2, 6), *(router(torch.randn(1, 4)) for _ in range(2))
    alone = [experts(x, each.chosen, each.shares) for each in (one, two)]
    left = torch.zeros(2, 6)
    left[:, :3] = 1
    both = mixed([(left, one), (1 - left, two)])
    torch.testing.assert_close(
        experts(x, both.chosen, both.shares), torch.cat([alone[0][..., :3], alone[1][..., 3:]], 3)
    )
    half = mixed([(0.5, one), (0.5, two)])
    torch.testing.assert_close(experts(x, half.chosen, half.shares), (alone[0] + alone[1]) / 2)


def test_the_gate_is_a_float32_island() -> None:
    router = Router(ExpertOptions(3), features=8).to(torch.bfloat16)
    vectors = torch.randn(4, 8)
    expected = torch.softmax(F.layer_norm(vectors, (8,)) @ router.weight.float().T + router.bias.float(), 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = router(vectors).probabilities
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_a_planted_decoder_with_experts_is_found_again() -> None:
    torch.manual_seed(0)
    experts = ExpertOptions(3, width=6)
    narrow, wide, found = (Decoder(DecoderOptions(width, experts=experts)) for width in (32, 64, 32))
    groups = filled(narrow) and wide.channel_groups()
    found.load_state_dict(pruned_state(planted(narrow, wide, groups), found.state_dict(), groups))
    assert narrow.router is not None
    features, routing = torch.randn(2, 512, 3, 4), narrow.router(torch.randn(2, 1024))
    assert torch.equal(found(features, routing), narrow(features, routing))


def test_more_experts_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match=r"experts\.chosen is 2, experts\.count 1: choose no more than there are"):
        Decoder(DecoderOptions(experts=ExpertOptions(1, 2)))


def test_gradients_of_shared_experts_add_up_in_one_order() -> None:
    """Whatever the number of threads: plain indexing adds them up as the threads come."""
    torch.manual_seed(0)
    experts = Experts(ExpertOptions(4, width=64), 64)
    x, chosen, shares = torch.randn(64, 64, 8, 8), torch.randint(0, 2, (64, 1)), torch.rand(64, 1, 1, 1)
    threads, gradients = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        for _ in range(6):
            experts.zero_grad()
            experts(x, chosen, shares).square().sum().backward()
            gradients.append(experts.first.weight.grad)
    finally:
        torch.set_num_threads(threads)
    assert all(gradient is not None and torch.equal(gradient, gradients[0]) for gradient in gradients)
