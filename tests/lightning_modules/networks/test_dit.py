"""The diffusion transformer against its authors' code (facebookresearch/DiT, willisma/SiT) and its closed forms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_modules.networks.dit import DiT, DiTOptions
from lightning_modules.networks.dit_blocks import rotary_angles, rotate
from tests.formulas import gradient_sums, set_weights_, waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "dit.npz"
SMALL = DiTOptions(depth=2, width=24, heads=3)
#: Options, resolution, channels in and out, times: what the authors' code was run with, in float64.
CASES = {
    "dit-2": (SMALL, 8, 4, 8, [3.0, 417.5]),
    "dit-4": (DiTOptions(depth=3, width=16, heads=2, patch=4, mlp_ratio=2.0), 16, 3, 3, [999.0, 0.0]),
    # SiT leaves out the second half of the channels.
    "sit-2": (SMALL, 8, 4, 8, [0.25, 0.8]),
}
MODERN = dataclasses.replace(SMALL, norm="rms", qk_norm=True, rope=True)


def small(options: DiTOptions = SMALL, *, num_classes: int = 5) -> DiT:
    network = DiT(options, resolution=8, in_channels=4, out_channels=4, num_classes=num_classes)
    set_weights_(network)
    return network


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return waves(2, 4, 8, 8).to(dtype), torch.tensor([3.0, 417.5], dtype=dtype), torch.tensor([2, 5])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_the_authors(name: str, dtype: torch.dtype, tolerance: float) -> None:
    options, resolution, in_channels, out_channels, times = CASES[name]
    network = DiT(options, resolution=resolution, in_channels=in_channels, out_channels=out_channels, num_classes=5).to(
        dtype
    )
    set_weights_(network)
    x = waves(2, in_channels, resolution, resolution, number=1).to(dtype).requires_grad_()
    output = network(x, torch.tensor(times, dtype=dtype), torch.tensor([2, 5]))
    if name.startswith("sit"):
        output = output.chunk(2, 1)[0]
    (output * waves(*output.shape, number=2)).sum().backward()
    assert x.grad is not None
    with np.load(REFERENCE) as reference:
        for key, ours in {"output": output.detach(), "gradient": x.grad, "sums": gradient_sums(network)}.items():
            expected = torch.from_numpy(reference[f"{name}/{key}"])
            assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max(), key


def test_dit_xl_2_has_the_papers_size() -> None:
    with torch.device("meta"):
        options = DiTOptions(depth=28, width=1152, heads=16)
        network = DiT(options, resolution=32, in_channels=4, out_channels=8, num_classes=1000)
    # The authors count the fixed positions, too.
    assert sum(tensor.numel() for tensor in [*network.parameters(), *network.buffers()]) == 675_129_632


@pytest.mark.parametrize("options", [SMALL, MODERN])
def test_it_starts_as_nothing_and_learns_from_all_its_weights(options: DiTOptions) -> None:
    torch.manual_seed(0)
    network = DiT(options, resolution=8, in_channels=4, out_channels=4, num_classes=5)
    assert not network(*inputs()).any()
    set_weights_(network)
    network(*inputs()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("options", [SMALL, MODERN])
def test_gradient_checkpointing_trains_the_same(options: DiTOptions) -> None:
    def gradients(gradient_checkpointing: bool) -> list[Tensor]:
        network = small(dataclasses.replace(options, gradient_checkpointing=gradient_checkpointing))
        network(*inputs()).square().sum().backward()
        return [parameter.grad for parameter in network.parameters()]  # type: ignore[misc]

    for ours, expected in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, expected)


def test_rotary_logits_depend_on_offsets_alone() -> None:
    side, features = 5, 8
    query, key = waves(features).float(), waves(features, number=1).float()
    rotation = rotary_angles(side, features)
    places = side * side
    logits = rotate(query.expand(places, -1), rotation) @ rotate(key.expand(places, -1), rotation).T
    by_offset: dict[tuple[int, int], list[float]] = {}
    for here in range(places):
        for there in range(places):
            offset = (here // side - there // side, here % side - there % side)
            by_offset.setdefault(offset, []).append(logits[here, there].item())
    assert len(by_offset) == 81
    for found in by_offset.values():
        assert found == pytest.approx([found[0]] * len(found), abs=1e-5)
    # And do depend on them, along both sides.
    assert len({round(found[0], 3) for found in by_offset.values()}) > 60
    assert by_offset[0, 0][0] == pytest.approx(float(query @ key), abs=1e-5)


@pytest.mark.parametrize("options", [MODERN, SMALL])
def test_it_knows_where_a_patch_is(options: DiTOptions) -> None:
    """Without positions, pictures with their patches in another order would give the same in that order."""
    torch.manual_seed(0)
    network = small(options)
    x, time, labels = torch.randn(2, 4, 8, 8), *inputs()[1:]
    with torch.no_grad():
        for axis in (2, 3):
            moved = network(x.roll(2, axis), time, labels).roll(-2, axis)
            assert (moved - network(x, time, labels)).abs().max() > 1e-3


def test_queries_and_keys_are_normalised() -> None:
    """With qk_norm the scale of queries and keys is of no consequence."""
    for norm in ("layer", "rms"):
        network = small(dataclasses.replace(SMALL, norm=norm, qk_norm=True))
        before = network(*inputs())
        with torch.no_grad():
            for block in network.blocks:
                block.attention.qkv.weight[:48] *= 100
                block.attention.qkv.bias[:48] *= 100
        torch.testing.assert_close(network(*inputs()), before, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("options", [SMALL, MODERN])
def test_blocks_are_compiled_whole_and_once_for_all(options: DiTOptions) -> None:
    torch.compiler.reset()
    network, counter = small(dataclasses.replace(options, depth=4)), CompileCounter()
    plain = network(*inputs())
    network.compile(backend=counter)
    torch.testing.assert_close(network(*inputs()), plain)
    assert counter.frame_count == 1
    assert network._compiled_call_impl is None


@pytest.mark.parametrize("options", [SMALL, MODERN])
def test_autocast_ends_in_float32(options: DiTOptions) -> None:
    network, seen = small(options), set()
    network.blocks[0].attention.register_forward_hook(lambda module, given, output: seen.add(output.dtype))
    network.blocks[1].register_forward_pre_hook(lambda module, given: seen.add(("tokens", given[0].dtype)))
    network.time.register_forward_hook(lambda module, given, output: seen.add(("time", output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        output = network(*inputs())
    assert seen == {torch.bfloat16, ("time", torch.float32), ("tokens", torch.float32)}
    assert output.dtype == torch.float32
    expected = network(*inputs())
    assert (output - expected).abs().max() < 0.05 * expected.abs().max()


def test_weights_in_bfloat16_take_float32_images() -> None:
    output = small(MODERN).to(torch.bfloat16)(*inputs())
    assert output.dtype == torch.float32
    assert output.isfinite().all()


def test_a_directional_derivative_by_forward_mode() -> None:
    """As mean flows need it, with attention's plain kernel."""
    network = small(MODERN).double()
    x, time, labels = inputs(torch.float64)
    direction, one = waves(*x.shape, number=3), torch.ones_like(time)

    def output(x: Tensor, time: Tensor) -> Tensor:
        return network(x, time, labels)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        _, derivative = torch.func.jvp(output, (x, time), (direction, one))
        ahead, behind = (output(x + step * direction, time + step) for step in (1e-5, -1e-5))
    torch.testing.assert_close(derivative, (ahead - behind) / 2e-5, atol=1e-6, rtol=1e-5)


def test_without_classes_labels_are_ignored() -> None:
    network = small(num_classes=0)
    x, time, labels = inputs()
    assert torch.equal(network(x, time), network(x, time, labels))
    with pytest.raises(ValueError, match="conditioned on 5 classes needs labels"):
        small()(x, time)


def test_channels_last_gives_the_same() -> None:
    network = small()
    expected = network(*inputs())
    x, time, labels = inputs()
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), time, labels), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 26}, "width 26 must be a multiple of 4 and of heads"),
        ({"heads": 5}, r"width 24 must be a multiple of 4 and of heads \(5\)"),
        ({"heads": 4, "rope": True}, "rope needs heads of a multiple of 4 numbers, not width 24 / heads 4 = 6"),
        ({"patch": 3}, "resolution 8 is no multiple of patch 3"),
        ({"patch": 16}, "resolution 8 is no multiple of patch 16"),
        ({"norm": "batch"}, "norm 'batch' is unknown; choose layer or rms"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        small(dataclasses.replace(SMALL, **changes))
    assert "\n" not in str(caught.value)


def test_augmentation_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="takes no augmentation labels"):
        small()(*inputs(), torch.zeros(2, 9))


def test_samples_do_not_see_each_other() -> None:
    network = small(MODERN)
    x, time, labels = inputs()
    torch.testing.assert_close(network(x[:1], time[:1], labels[:1]), network(x, time, labels)[:1], atol=1e-5, rtol=1e-5)
