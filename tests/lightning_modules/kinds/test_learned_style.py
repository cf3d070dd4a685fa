"""Learned style losses of AdaIN, FastStyle and CUT: their terms, resuming, ranks, and where the encoder comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from launch.checkpoints.export import export
from launch.training.family_runs import load_runs
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.learned_style import LearnedStyleFamily
from lightning_modules.networks.adain import DecoderOptions
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.networks.style_discriminator import StyleDiscriminator
from lightning_modules.networks.style_head import LAYERS, STATISTICS, StyleHeadOptions, normalised
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.crops import random_parts
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle
from lightning_modules.style.style_encoder import StyleEncoder
from lightning_modules.translation.cut import CUT
from tests.formulas import set_he_weights_, waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.launch.strategies.ranks import run_ranks
from tests.lightning_modules.translation.domains import Domains, check_same, train

SIDE, HEAD = 24, StyleHeadOptions(8, 4)
CRITIC = PatchDiscriminatorOptions(4, 2, "none")
#: Of optimizers that do not blow rounding errors up.
SLOW = OptimizerOptions(lr=1e-3, eps=1e-2)
CODES: dict[str, Any] = {"style_distance_weight": 5.0, "style_classifier_weight": 2.0}
ALL: dict[str, Any] = {**CODES, "style_adversarial_weight": 3.0, "style_discriminator": CRITIC}


class Pairs(Domains):
    second = "style"
    shape = (4, 3, SIDE, SIDE)


class Colored(Domains):
    shape = (4, 3, SIDE, SIDE)


def encoder() -> StyleEncoder:
    torch.manual_seed(1)
    return StyleEncoder(resolution=SIDE, crop_size=16, head=HEAD)


def ready(module: Any) -> Any:
    """With an encoder of random weights that are always the same, and a trained head."""
    torch.manual_seed(2)
    vgg = VGG19(None)
    # Random ones of torch's own kind would make all pictures alike.
    set_he_weights_(vgg.parameters())
    module._encoder = Frozen(vgg)
    if "style_encoder" in module.runs():
        module.take_run("style_encoder", encoder())
    return module


def adain(**options: Any) -> AdaIN:
    torch.manual_seed(0)
    given = {"style_encoder": "RUN", "style_head": HEAD, "optimizer": SLOW, "style_discriminator_optimizer": SLOW}
    module: AdaIN = ready(AdaIN(resolution=SIDE, decoder=DecoderOptions(16), **(given | options)))
    return module


def fast_style(**options: Any) -> FastStyle:
    torch.manual_seed(0)
    given = {"style_encoder": "RUN", "style_head": HEAD, "optimizer": SLOW, "style_discriminator_optimizer": SLOW}
    network, styles = FastStyleOptions(kind="light"), ["a.png", "b.png", "c.png"]
    module: FastStyle = ready(FastStyle(styles=styles, resolution=SIDE, network=network, **(given | options)))
    module.take_pictures("styles", [picture(40, 30, number) for number in range(3)])
    return module


def cut(**options: Any) -> CUT:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "style_encoder": "RUN",
        "style_head": HEAD,
        "generator": ResnetGeneratorOptions(4, 1, antialias=True),
        "discriminator": PatchDiscriminatorOptions(4, 2, "instance", antialias=True),
        "patches": 12,
        "projection_width": 8,
    }
    module: CUT = ready(CUT(resolution=SIDE, **(given | options)))
    return module


def picture(height: int, width: int, number: float = 0) -> Tensor:
    return waves(1, 3, height, width, number=number).float()


def codes(module: LearnedStyleFamily, pictures: Tensor) -> Tensor:
    """Codes, written out."""
    rows = [module.encoder(pictures, (layer,))[layer].flatten(2).double() for layer in LAYERS]
    numbers = torch.cat([x for row in rows for x in (row.mean(2), (row.var(2, correction=0) + 1e-5).sqrt())], 1)
    found = encoder().head.double()
    x = (numbers + 0.05).log()
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    return F.normalize(found.output(F.leaky_relu(found.hidden(x), 0.2)), dim=1)


# ---- the terms ------------------------------------------------------------------------------------------------------


def test_adain_s_terms_are_the_formulas() -> None:
    batch = next(iter(Pairs(0, 1)))
    module, plain = adain(**CODES), adain()
    found, before = module.losses(batch), plain.losses(batch)
    with torch.no_grad():
        pictures = module.decoder(module._target(batch["image"], module._style_statistics(batch)[0])[0])
        results, styles = codes(module, pictures), codes(module, batch["style"])
        likeness = results @ styles.T
    distance = (1 - likeness.diagonal()).mean()
    classes = -(likeness.diagonal() / 0.1 - torch.logsumexp(likeness / 0.1, 1)).mean()
    assert found["style_distance"].item() == pytest.approx(distance.item(), abs=1e-5)
    assert found["style_classifier"].item() == pytest.approx(classes.item(), abs=1e-4)
    expected = before["loss"].item() + 5 * distance.item() + 2 * classes.item()
    assert found["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert not {"style_distance", "style_classifier"} & before.keys()


def test_fast_style_s_classes_are_its_styles() -> None:
    module = fast_style(**CODES, layer_weights=(1.0, 1.0, 0.0, 0.0))
    batch = next(iter(Pairs(0, 1)))
    found = module.losses(batch)
    own = torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        mix = torch.eye(3)[own][:, :, None, None]
        pictures = module.network(batch["image"], mix, module.still_noise(batch["image"]))
        likeness = codes(module, pictures) @ torch.cat([codes(module, each) for each in module._pictures]).T
    mine = likeness[torch.arange(4), own]
    assert found["style_distance"].item() == pytest.approx((1 - mine).mean().item(), abs=1e-5)
    expected = -(mine / 0.1 - torch.logsumexp(likeness / 0.1, 1)).mean().item()
    assert found["style_classifier"].item() == pytest.approx(expected, abs=1e-4)


def test_cut_s_terms_look_at_both_domains() -> None:
    module, batch = cut(**CODES), next(iter(Colored(0, 1)))
    made = module.translate(batch["image"], "a-to-b").detach()
    found = module.style_terms(made, batch)
    results, a, b = (codes(module, images).detach() for images in (made, batch["image"], batch["image_b"]))
    assert found["style_distance"].item() == pytest.approx((1 - results @ b.T).mean().item(), abs=1e-5)
    shares = torch.softmax(torch.cat([results @ b.T, results @ a.T], 1) / 0.1, 1)
    assert found["style_classifier"].item() == pytest.approx(-shares[:, :4].sum(1).log().mean().item(), abs=1e-4)


@pytest.mark.parametrize("make", [adain, fast_style, cut])
def test_without_weights_there_is_nothing_of_it(make: Callable[..., Any], tmp_path: Path) -> None:
    """A run that is named but not needed changes no weight and no random number."""
    data = Colored if make is cut else Pairs
    off = train(make(style_temperature=0.5, style_distance_weight=0.0), tmp_path / "off", 0, 2, data=data)
    default = train(make(style_encoder=None), tmp_path / "default", 0, 2, data=data)
    check_same(off, default)
    assert not any(name.startswith("style_") for name in off["state_dict"])
    assert make().runs().get("style_encoder") is None
    assert make().published_weights() == (() if make is cut else ("vgg19_normalized",))


def test_the_style_moves_logits_by_an_inner_product() -> None:
    network = StyleDiscriminator(PatchDiscriminatorOptions(4, 2, "none")).double()
    images, statistics = waves(2, 3, 28, 28), waves(2, STATISTICS).abs()
    features = network.patches.features(images)
    moved = network(images, statistics) - network.patches(images)
    wanted = network.projection(normalised(statistics))
    assert moved.shape == (2, 1, *[side - 1 for side in features.shape[2:]])
    # A place in the middle sees 4 x 4 places of the features.
    seen = features[:, :, 0:4, 1:5].mean((2, 3))
    torch.testing.assert_close(moved[:, 0, 1, 2], (wanted * seen).sum(1))


def test_parts_are_squares_of_the_pictures() -> None:
    pictures = [picture(20, 9), picture(12, 30, 1)]
    numbers, noise = torch.tensor([1, 0, 1, 1]), torch.tensor([[0.0, 0.0], [0.999999, 0.5], [0.5, 1 - 2**-24], [0, 0]])
    found = random_parts(pictures, numbers, noise, size=8)
    torch.testing.assert_close(found[0], pictures[1][0, :, :8, :8], rtol=0, atol=0)
    torch.testing.assert_close(found[1], pictures[0][0, :, 12:, 1:], rtol=0, atol=0)
    torch.testing.assert_close(found[2], pictures[1][0, :, 2:10, 22:], rtol=0, atol=0)
    enlarged = random_parts(pictures, numbers, noise, size=18)
    assert enlarged.shape == (4, 3, 18, 18)
    wanted = F.interpolate(pictures[1][:, :, :9, :9], (18, 18), mode="bilinear")
    torch.testing.assert_close(enlarged[:1], wanted)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [adain, fast_style, cut])
def test_a_resumed_training_is_the_same_to_the_bit(make: Callable[..., Any], tmp_path: Path) -> None:
    """It needs no run: the head is in the checkpoint, and was not trained."""
    data, options = (Colored, CODES) if make is cut else (Pairs, {**ALL, "micro_batches": 2})
    whole = train(make(**options), tmp_path, 0, 4, data=data)
    train(make(**options), tmp_path, 0, 2, data=data)
    other = make(**options)
    torch.nn.init.zeros_(other.style_head.hidden.weight)
    check_same(whole, train(other, tmp_path, 2, 4, tmp_path / "step2.ckpt", data=data))
    for name, value in encoder().head.state_dict().items():
        assert torch.equal(whole["state_dict"][f"style_head.{name}"], value)
    judge = "discriminator" if make is cut else "style_discriminator"
    assert judge in whole["optimizer_states"]
    before = make(**options).state_dict()
    assert any((v - before[k]).abs().max() > 1e-4 for k, v in whole["state_dict"].items() if k.startswith(judge))


@pytest.mark.parametrize("make", [adain, fast_style])
def test_micro_batches_change_nothing(make: Callable[..., Any], tmp_path: Path) -> None:
    """But for the classes of AdaIN's classifier, which are those of a micro-batch."""
    options = {**ALL, "style_classifier_weight": 0.0}
    one, two = (
        train(make(**options, micro_batches=parts), tmp_path / str(parts), 0, 3, data=Pairs)["state_dict"]
        for parts in (1, 2)
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("family", ["adain_judged", "fast_style_judged", "cut_judged"])
def test_two_ranks_train_like_one(family: str, tmp_path: Path) -> None:
    """Classes are of the global batch. In float32 gradients of biases that CUT's norms take out are rounding alone."""
    alike: dict[str, Any] = {"family": family, "until": 2}
    if family == "cut_judged":
        alike["precision"] = "64-true"
    jobs: list[dict[str, Any]] = [
        {**alike, "name": "one", "strategy": "auto", "devices": 1},
        {**alike, "name": "two", "strategy": "ddp"},
    ]
    run_ranks("tests.launch.strategies.rank_program", tmp_path, jobs, ranks=2)
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for ours, wanted in zip(two["losses"], one["losses"], strict=True):
        assert ours == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.proof
@pytest.mark.parametrize("family", ["adain_judged", "fast_style_judged", "cut_judged"])
def test_every_stage_of_zero_trains_like_ddp(family: str, tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, family, ("ddp", "zero1", "zero2", "zero3"), until=2)


# ---- the encoder's run ----------------------------------------------------------------------------------------------


def test_an_exported_encoder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StyleEncoder, "published_weights", lambda self: ())
    file = tmp_path / "encoder.safetensors"
    export(encoder(), file, origin={"images_seen": 0, "weights": "raw"})
    module = AdaIN(resolution=SIDE, style_encoder=str(file), style_head=HEAD, style_distance_weight=1.0)
    load_runs(module)
    for name, value in encoder().head.state_dict().items():
        assert torch.equal(module.style_head.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in module.style_head.parameters())

    wider = AdaIN(resolution=SIDE, style_encoder=str(file), style_distance_weight=1.0)
    with pytest.raises(
        ValueError, match=r"style_encoder .*: its head has another shape: give --model.style_head.width 8"
    ):
        load_runs(wider)
    missing = AdaIN(resolution=SIDE, style_encoder=str(tmp_path / "none"), style_distance_weight=1.0)
    with pytest.raises(FileNotFoundError, match=r"--model.style_encoder .*none"):
        load_runs(missing)
    other = CUT(resolution=SIDE, discriminator=CRITIC)
    with pytest.raises(ValueError, match="is the run of a CUT; the run of a StyleEncoder is wanted"):
        module.take_run("style_encoder", other)


def test_a_narrower_run_may_have_a_judge_that_the_wide_one_had_not() -> None:
    wide = AdaIN(resolution=SIDE, decoder=DecoderOptions(32))
    module = adain(**ALL, pruned_from="WIDE", style_encoder="RUN")
    assert set(module.runs()) == {"pruned_from", "style_encoder"}
    judge = {name: value.clone() for name, value in module.style_discriminator.state_dict().items()}
    module.take_run("pruned_from", wide)
    for name, value in judge.items():
        assert torch.equal(module.style_discriminator.state_dict()[name], value)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            AdaIN,
            {"style_distance_weight": 1.0},
            "style_distance_weight: name the run of a StyleEncoder by style_encoder",
        ),
        (AdaIN, {"style_classifier_weight": -1.0}, "style_classifier_weight is -1"),
        (AdaIN, {"style_adversarial_weight": -1.0}, "style_adversarial_weight is -1"),
        (AdaIN, {"style_temperature": 0.0}, "style_temperature is 0"),
        (AdaIN, {**ALL, "style_encoder": "RUN", "style_mixing": "layer"}, "style_mixing layer: learned style losses"),
        (AdaIN, {"style_adversarial_weight": 1.0, "resolution": 16}, "set style_discriminator.layers lower"),
        (
            FastStyle,
            {**CODES, "style_encoder": "RUN", "styles": ["a.png"]},
            "a classifier of one style is always right",
        ),
        (CUT, {**CODES, "style_encoder": "RUN", "channels": 1}, "channels is 1: style encoders see RGB alone"),
    ],
)
def test_what_does_not_fit_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**{"resolution": 32, **options})


def test_a_batch_of_one_has_no_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set data.global_batch_size to 2 or more per micro-batch"):
        train(adain(**CODES, micro_batches=4), tmp_path, 0, 1, data=Pairs)
