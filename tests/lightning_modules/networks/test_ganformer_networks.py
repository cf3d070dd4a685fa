"""GANformer's networks: outputs and gradients of the authors' code; attention by hand; sizes, precisions."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.losses.penalties import path_lengths, r1_penalty
from lightning_modules.networks.ganformer.attention import AttentionOptions, BipartiteAttention, places_on_grid
from lightning_modules.networks.ganformer.mapping import ComponentMapping, ComponentMappingOptions
from lightning_modules.networks.ganformer.synthesis import ComponentGenerator, ComponentSynthesisOptions
from lightning_modules.networks.stylegan2.discriminator import Discriminator, DiscriminatorOptions
from tests.formulas import gradient_sums, set_weights_, waves
from tests.lightning_modules.networks.authors import check_numbers

#: Outputs and gradients of dorarad/gansformer's PyTorch code in float64, run once on a CPU; none of its code is here.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "ganformer.npz"
check = functools.partial(check_numbers, REFERENCE)
COUNT, PARTS, WIDTH, SIDE = 4, 5, 8, 32
#: Channels of the sides 4, 8, 16 and 32: 16, 16, 16 and 8.
WIDTHS: dict[str, Any] = {"channel_base": 256, "channel_max": 16}
MIDDLE = AttentionOptions(dropout=0.0, first_side=8, last_side=16)
#: Of the mapping and of the attention. The authors' ``both`` needs the mending of a slip: split(2) for chunk(2).
CASES: dict[str, tuple[dict[str, Any], AttentionOptions]] = {
    "duplex": ({}, MIDDLE),
    "iterated": ({"self_attention": False}, replace(MIDDLE, iterations=3, integration="add", normalization="none")),
    "simplex": ({"layers": 3, "residual": False, "heads": 2}, replace(MIDDLE, kind="simplex", heads=2)),
    "both": ({"layers": 3}, replace(MIDDLE, kind="simplex", integration="both", normalization="instance")),
}
#: Parameters of the authors' generator at 256 px, but for the keys that their duplex attention does not use.
PUBLISHED = 30_903_632 - 337_920
#: Of the authors' mean path length.
MEAN = 0.3
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def generator(case: str, *, checkpointing: bool = False) -> ComponentGenerator:
    mapping, attention = CASES[case]
    options = ComponentSynthesisOptions(**WIDTHS, gradient_checkpointing=checkpointing, attention=attention)
    small = ComponentMappingOptions(**{"layers": 4, "w_dim": WIDTH, "components": PARTS, "dropout": 0.0, **mapping})
    network = ComponentGenerator(small, options, latent_dim=(PARTS + 1) * WIDTH, resolution=SIDE).eval()
    set_weights_(network, scale=0.5)
    if network.mapping.places is not None and network.synthesis.places is not None:
        # The authors share them.
        network.synthesis.places.data.copy_(network.mapping.places)
    for name, parameter in network.mapping.named_parameters():
        # Its weights are large, as its learning rate is small.
        large = name.endswith(("first.weight", "second.weight", "last.weight"))
        parameter.data *= (100 if small.residual else 170) if large else 1
    for name, parameter in network.named_parameters():
        # So that some latents get far more attention than others.
        sharp = name.endswith(("query_weight", "keys.weight", "centroids"))
        parameter.data *= (10 if case == "iterated" else 5) if sharp else 1
    for number, (name, buffer) in enumerate(network.synthesis.named_buffers()):
        if name.endswith("noise_constant"):
            buffer.copy_(waves(*buffer.shape, number=number))
    return network


def latents() -> Tensor:
    return waves(COUNT, PARTS + 1, WIDTH, number=1, scale=1.5)


def of_generator(network: ComponentGenerator) -> dict[str, Tensor]:
    """What is compared of a generator: images, w, attention, and gradients of images and of path lengths."""
    like = next(network.parameters())
    w = network.mapping(latents().to(like).flatten(1))
    ws = network.broadcast(w)
    attention = network.synthesis.attention(ws)
    images = network.synthesis(ws)
    (images * waves(*images.shape, number=2).to(like)).mean().backward(retain_graph=True)
    found = {"w": w, "attention": torch.cat([one.flatten()[::41] for one in attention])}
    found |= {"images": images.flatten()[::29], **sums_of(network)}
    network.zero_grad()
    # The authors' lengths are of one latent.
    lengths = path_lengths(images, ws, waves(*images.shape, number=3).to(like)) / (PARTS + 1) ** 0.5
    (lengths - MEAN).square().mean().backward()
    found |= {"lengths": lengths, **{f"path_{name}": value for name, value in sums_of(network).items()}}
    return found


def sums_of(network: ComponentGenerator) -> dict[str, Tensor]:
    """``gradient_sums``; codes of the components' places apart, since the authors have one set of them."""
    places = [of_one.places for of_one in (network.mapping, network.synthesis) if of_one.places is not None]
    gradient = sum((of_one.grad for of_one in places if of_one.grad is not None), torch.zeros(PARTS, WIDTH))
    for parameter in network.parameters():
        # The last bias has no share in path lengths.
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    for parameter in places:
        parameter.grad = torch.zeros_like(parameter)
    return {"gradients": gradient_sums(network), **({"places": gradient} if places else {})}


@pytest.mark.parametrize("case", CASES)
def test_the_generator_is_the_authors(case: str, dtype: torch.dtype) -> None:
    check(of_generator(generator(case)), case, TOLERANCES[dtype])


def test_the_discriminator_is_the_authors(dtype: torch.dtype) -> None:
    network = Discriminator(DiscriminatorOptions(**WIDTHS), resolution=SIDE)
    set_weights_(network, scale=1.0)
    images = waves(COUNT, 3, SIDE, SIDE, number=4).to(dtype)
    logits: list[Tensor] = []
    penalty = r1_penalty(lambda x: logits.append(network(x)) or logits[-1], images)  # type: ignore[func-returns-value]
    (F.softplus(-logits[0]).mean() + penalty).backward()
    found = {"logits": logits[0], "r1": penalty[None], "gradients": gradient_sums(network)}
    check(found, "discriminator", TOLERANCES[dtype])


def test_the_published_size() -> None:
    with torch.device("meta"):
        network = ComponentGenerator(ComponentMappingOptions(), ComponentSynthesisOptions(), latent_dim=17 * 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED


def test_each_pixel_is_scaled_by_the_latent_that_it_attends_to() -> None:
    """Keys that agree with one channel each: pixels of this channel get that latent's value, and no other one's."""
    attention = BipartiteAttention(4, 4, 4, 2, AttentionOptions("simplex", normalization="none", dropout=0.0))
    for weight in (attention.query_weight, attention.keys.weight, attention.values.weight, attention.control_weight):
        weight.data = torch.eye(4) * 2  # the scale of equalised learning rate, sqrt(4)
    for layer in (attention.query_places, attention.key_places):
        layer.weight.data.zero_()
    x = torch.zeros(1, 4, 3)
    x[0, 0, :2] = x[0, 1, 2] = 200.0
    latents = torch.tensor([[[1.0, 0, 0, 0], [0, 3.0, 0, 0]]])
    changed, weights = attention(x, latents, torch.zeros(3, 4))
    torch.testing.assert_close(weights[0, 0], torch.tensor([[1.0, 1, 0], [0, 0, 1]]))
    torch.testing.assert_close(changed[0, 0], torch.tensor([400.0, 400, 0]))
    torch.testing.assert_close(changed[0, 1], torch.tensor([0.0, 0, 800]))


def test_centroids_come_to_the_means_of_clusters() -> None:
    """Two clusters of features, and centroids not far from them: an iteration moves each to its cluster's mean."""
    options = AttentionOptions("duplex", 2, normalization="none", dropout=0.0)
    attention = BipartiteAttention(2, 2, 4, 2, options)
    attention.query_weight.data = torch.eye(2) * 2**0.5
    attention.centroids.data = torch.stack([torch.eye(2)[None] * 9, torch.zeros(1, 2, 2)])
    x = torch.tensor([[[8.0, 12, -1, 1], [1.0, -1, 11, 9]]])
    found: list[Tensor] = []
    scores = attention._scores
    attention._scores = lambda x, keys, *rest: found.append(keys) or scores(x, keys, *rest)  # type: ignore[method-assign,func-returns-value]
    attention(x, torch.zeros(1, 2, 2), torch.zeros(4, 4))
    torch.testing.assert_close(found[1][0, 0], torch.tensor([[10.0, 0], [0, 10]]))


def test_dropout_takes_weights_and_whole_latents() -> None:
    attention = BipartiteAttention(8, 4, 4, 50, AttentionOptions("duplex", dropout=0.4))
    x, latents, places = torch.randn(2, 8, 64), torch.randn(2, 50, 4), torch.randn(64, 4)
    torch.manual_seed(0)
    weights = attention(x, latents, places)[1]
    gone = (weights == 0).all(-1)
    assert gone.float().mean().item() == pytest.approx(0.2, abs=0.12)
    assert (weights == 0).float().mean().item() == pytest.approx(1 - 0.8 * 0.8, abs=0.12)
    whole = attention.eval()(x, latents, places)[1]
    torch.testing.assert_close(whole.sum(2), torch.ones(2, 1, 64))
    kept = weights != 0
    torch.testing.assert_close(weights[kept], whole[kept] / 0.8**2)


def test_places_are_waves_of_columns_and_rows() -> None:
    found = places_on_grid(3, 8).view(3, 3, 8)
    line = torch.tensor([-1.0, 0, 1])
    torch.testing.assert_close(found[1, :, 0], line.sin())
    torch.testing.assert_close(found[1, :, 3], (line / 100).cos())
    torch.testing.assert_close(found[:, 1, 4], line.sin())
    torch.testing.assert_close(found[:, 1, 7], (line / 100).cos())


def test_components_see_each_other_but_not_the_global_latent() -> None:
    mapping = ComponentMapping(ComponentMappingOptions(2, 8, components=3, dropout=0.0), latent_dim=32)
    z = torch.randn(1, 32, requires_grad=True)

    def seen_by(part: int) -> list[bool]:
        (slope,) = torch.autograd.grad(mapping(z)[:, 8 * part : 8 * (part + 1)].sum(), z)
        return slope.view(4, 8).abs().sum(1).gt(0).tolist()

    assert seen_by(1) == [True, True, True, False]
    assert seen_by(3) == [False, False, False, True]


def test_the_mean_of_w_is_that_of_all_components() -> None:
    mapping = ComponentMapping(ComponentMappingOptions(2, 4, w_avg_beta=0.75, components=2), latent_dim=12)
    mapping.follow(torch.arange(12.0))
    torch.testing.assert_close(mapping.w_avg, torch.tensor([4.0, 5, 6, 7]).repeat(3) / 4)


def test_labels_are_of_the_global_latent() -> None:
    options = ComponentMappingOptions(2, 8, components=3, dropout=0.0)
    mapping = ComponentMapping(options, latent_dim=32, num_classes=2)
    z = torch.randn(1, 32)
    one, other = (mapping(z, torch.tensor([label])) for label in (0, 1))
    assert torch.equal(one[:, :24], other[:, :24])
    assert not torch.equal(one[:, 24:], other[:, 24:])


@pytest.mark.parametrize("case", ["duplex", "simplex"])
def test_recomputed_blocks_are_the_same(case: str) -> None:
    plain, again = (of_generator(generator(case, checkpointing=on)) for on in (False, True))
    assert torch.equal(plain["gradients"], again["gradients"])
    assert torch.equal(plain["path_gradients"], again["path_gradients"])


def test_sixteen_bits_come_near() -> None:
    network, z = generator("duplex"), torch.randn(COUNT, (PARTS + 1) * WIDTH)
    exact = network(z)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(z)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("mapping", "attention", "message"),
    [
        ({"components": 4}, {}, r"latent_dim is 48; it must be a multiple of mapping.components \+ 1 \(5\)"),
        ({"w_dim": 6}, {}, "mapping.w_dim is 6; it must be a multiple of 4"),
        ({}, {"heads": 3}, "attention.heads is 3; it must divide the 16 channels"),
        ({}, {"first_side": 64}, r"attention.first_side is 64; it must be attention.last_side \(16\) or less"),
    ],
)
def test_impossible_sizes_are_refused(mapping: dict[str, Any], attention: dict[str, Any], message: str) -> None:
    options = ComponentSynthesisOptions(**WIDTHS, attention=replace(MIDDLE, **attention))
    small = ComponentMappingOptions(**{"layers": 2, "w_dim": WIDTH, "components": PARTS, **mapping})
    with pytest.raises(ValueError, match=message):
        ComponentGenerator(small, options, latent_dim=48, resolution=SIDE)
