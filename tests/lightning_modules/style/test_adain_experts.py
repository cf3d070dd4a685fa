"""AdaIN's decoder with experts: its losses, pictures in tiles and mixtures, resuming, ranks, and an exported file."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from lightning_modules.core.deployment import Layout
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.style import mean_std
from lightning_modules.networks.adain import DecoderOptions
from lightning_modules.networks.experts import ExpertOptions, Gate
from lightning_modules.style.adain import AdaIN
from tests.benchmarks.style_experts import mutual_information
from tests.launch.export.families import exported, tiny
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.translation.domains import Domains, check_same
from tests.lightning_modules.translation.domains import train as train_domains
from tests.pictures import paintings, photographs

pytestmark = pytest.mark.network


def family(experts: ExpertOptions = ExpertOptions(3, 2, width=8), **options: Any) -> AdaIN:
    torch.manual_seed(0)
    checkpointing = options.pop("gradient_checkpointing", False)
    module = AdaIN(resolution=32, decoder=DecoderOptions(64, checkpointing, experts), **options)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return module


def vector(module: AdaIN, picture: Tensor) -> Tensor:
    return torch.cat(mean_std(module.encoder(picture, ("relu4_1",))["relu4_1"]), 1).flatten(1)


@pytest.mark.parametrize("gate", ["style", "content"])
def test_the_gate_s_picture_chooses_and_the_balance_is_weighed(gate: Gate) -> None:
    module = family(ExpertOptions(3, 1, gate, width=8), balance_weight=0.5)
    batch = {"image": photographs(32), "style": paintings(32, 3)}
    router = module.decoder.router
    assert router is not None
    losses = module.losses(batch)
    p = router(vector(module, batch["style" if gate == "style" else "image"])).probabilities
    f = torch.stack([(p.argmax(1) == number).float().mean() for number in range(3)])
    torch.testing.assert_close(losses["balance"], 3 * (f * p.mean(0)).sum())
    torch.testing.assert_close(losses["loss"], losses["content"] + 10 * losses["style"] + 0.5 * losses["balance"])
    # Style and content losses teach the gate by the share alone.
    (losses["loss"] - losses["balance_weighted"]).backward()
    assert router.weight.grad is not None
    assert router.weight.grad.abs().max() > 0


def test_without_experts_there_is_no_gate_and_nothing_to_balance() -> None:
    module = family(ExpertOptions())
    assert not [name for name, _ in module.named_parameters() if "router" in name or "experts" in name]
    assert "balance" not in module.losses({"image": photographs(32)[:2], "style": paintings(32)})


# ---- a picture ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["style", "content"])
def drawing(request: pytest.FixtureRequest) -> AdaIN:
    """With experts of which the pictures below choose different ones, and whose work shows."""
    module = family(ExpertOptions(4, 1, request.param, width=32)).eval()
    assert module.decoder.router is not None
    assert module.decoder.experts is not None
    with torch.no_grad():
        module.decoder.experts.second.weight.mul_(8)
        pictures = torch.cat([paintings(40), photographs(48)[:1, :, :40, :40]])
        vectors = torch.nn.functional.layer_norm(vector(module, pictures), (1024,))
        # Each has an expert of its own.
        module.decoder.router.weight[:3] = 5 * (vectors - vectors.mean(0)) / vectors.norm(dim=1, keepdim=True)
    return module


def test_tiles_make_the_same_picture(drawing: AdaIN) -> None:
    content, style = photographs(192)[:1, :, :24], paintings(180)[:1, :, :30]
    for alpha in (1.0, 0.3):
        whole, tiled = (drawing.stylize(content, Style([style], alpha=alpha), tile=tile) for tile in (None, 48))
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)


def test_styles_and_their_experts_mix_by_weights_masks_and_alpha(drawing: AdaIN) -> None:
    content, (one, two) = photographs(224)[:1, :, :16], paintings(40).split(1)
    chosen = [drawing.decoder.router(vector(drawing, each)).chosen for each in (one, two)]  # type: ignore[misc]
    assert not torch.equal(*chosen)
    alone = [drawing.stylize(content, Style([style])) for style in (one, two)]
    torch.testing.assert_close(drawing.stylize(content, Style([one, two], weights=[3, 0])), alone[0])
    torch.testing.assert_close(drawing.stylize(content, Style([one, one], weights=[1, 2])), alone[0])
    left = torch.zeros(16, 224)
    left[:, :112] = 1
    for tile in (None, 64):
        masked = drawing.stylize(content, Style([one, two], masks=torch.stack([left, 1 - left])), tile=tile)
        # Beyond what the decoder sees of the other side.
        torch.testing.assert_close(masked[..., :56], alone[0][..., :56], rtol=0, atol=1e-4)
        torch.testing.assert_close(masked[..., 168:], alone[1][..., 168:], rtol=0, atol=1e-4)
    # With alpha 0 the content draws itself, by its own experts.
    own = [drawing.stylize(content, Style([style], alpha=0.0)) for style in (one, two, content)]
    torch.testing.assert_close(own[0], own[1])
    torch.testing.assert_close(own[0], own[2])
    torch.testing.assert_close(drawing.stylize(content, Style([content])), own[0], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["style", "content"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_exported_file_gives_what_the_family_gives(gate: Gate, dynamic: bool, tmp_path: Path) -> None:
    """Of all samples, whatever alpha and experts."""
    experts = {"count": 3, "chosen": 2, "gate": gate, "width": 8}
    module = tiny("AdaIN", decoder={"width": 32, "experts": experts})
    figures = exported(module, "stylizer", Layout(dynamic=dynamic), tmp_path / "one.onnx")
    assert figures.difference < 1e-4


# ---- training -------------------------------------------------------------------------------------------------------


class Pairs(Domains):
    second, shape = "style", (4, 3, 16, 16)


train = functools.partial(train_domains, data=Pairs)


def test_a_resumed_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """With the styles' statistics mixed, movement and checkpointing."""
    made = functools.partial(family, temporal_weight=1.0, style_mixing="channel", gradient_checkpointing=True)
    whole = train(made(), tmp_path, 0, 2)
    train(made(), tmp_path, 0, 1)
    again = train(made(), tmp_path, 1, 2, tmp_path / "step1.ckpt")
    assert any("router" in name for name in whole["state_dict"])
    check_same(whole, again)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    batch = {"image": photographs(32)[:2], "style": paintings(32)}
    gradients = []
    for on in (False, True):
        module = family(gradient_checkpointing=on)
        module.losses(batch)["loss"].backward()
        gradients.append([parameter.grad for parameter in module.decoder.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    """Though each has chosen other experts: loads are counted over both."""
    jobs: list[dict[str, Any]] = [
        {"until": 2, "name": "one", "strategy": "auto", "devices": 1},
        {"until": 2, "name": "two", "strategy": "ddp"},
    ]
    jobs = [{"family": "adain_experts", **job} for job in jobs]
    run_ranks("tests.launch.strategies.rank_program", tmp_path, jobs, ranks=2)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for ours, wanted in zip(two["losses"], one["losses"], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    for name, value in one["state_dict"].items():
        # In float32 Adam makes whole steps, of 1e-4, of rounding errors where a gradient is 0.
        assert (two["state_dict"][name] - value).abs().max() < 4e-4, name
        assert (two["state_dict"][name] - value).abs().mean() < 1e-6, name


@pytest.mark.proof
def test_every_stage_of_zero_trains_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "adain_experts", ("ddp", "zero1", "zero2", "zero3"), until=2)


def test_the_benchmark_s_mutual_information_is_scikit_learn_s() -> None:
    from sklearn.metrics import mutual_info_score

    assert mutual_information(np.eye(4, dtype=int) * 3) == pytest.approx(2)
    assert mutual_information(np.outer([1, 2], [3, 4, 5])) == pytest.approx(0, abs=1e-12)
    table = np.random.default_rng(0).integers(0, 5, (6, 3))
    assert mutual_information(table) == pytest.approx(mutual_info_score(None, None, contingency=table) / math.log(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": {"experts": {"count": 2, "chosen": 3}}}, "chosen"),
        ({"decoder": {"experts": {"count": -1}}}, "count"),
        ({"decoder": {"experts": {"count": 1, "chosen": 2}}}, "choose no more than there are"),
        ({"balance_weight": -1.0}, "balance_weight"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaIN.from_options({"resolution": 32, **options})
