"""What runs can do is asked of their families, and their answers are the families' own pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from launch.inference.model import Model
from launch.inference.pictures import as_tensor
from launch.serving.asks import Ask, Generate, Stylize, Translate
from launch.serving.families import ServedMethod, ServedRun, arrays
from lightning_modules.catalogue import family
from lightning_modules.kinds.stylizer import Style
from tests.launch.serving.models import picture_bytes, pixels, served, tiny

UNET = {"architecture": "ddpmpp", "width": 8, "multipliers": (1,), "blocks": 1, "attention_resolutions": ()}
#: Families, and what a client is told of them.
TOLD = {
    "EDM": (
        {"resolution": 16, "channels": 1, "network": UNET, "num_classes": 3, "label_dropout": 0.1},
        {"steps": 18, "guidance": 1.0},
    ),
    "DDPM": ({"resolution": 16, "channels": 1, "network": UNET}, {"steps"}),
    "BigGAN": (
        {"resolution": 32, "latent_dim": 8, "num_classes": 3, "generator": {"width": 4}, "discriminator": {"width": 2}},
        {"truncation_psi": 1.0},
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_client_is_told_what_the_family_takes(name: str) -> None:
    options, sampling = TOLD[name]
    model = ServedRun("m", family(name).from_options(options).eval(), "random weights")
    before = model.module.sampled()
    assert model.facts.verbs == ("generate",)
    assert set(model.facts.sampling) == set(sampling)
    if isinstance(sampling, dict):
        assert dict(model.facts.sampling) == sampling
    assert ("heun" in model.facts.samplers) == ("steps" in model.facts.sampling)
    assert "flow-map" not in model.facts.samplers
    # Asking has changed nothing.
    assert model.module.sampled() == before


def test_samples_are_those_of_the_command_line_in_any_company() -> None:
    model = served("DCGAN")
    whole = Model(model.module, path="", images_seen=0, average=False).generate(9, seed=5)
    asks = [Generate(seed, 5) for seed in (8, 0, 3)]
    for made, ask in zip(model.run(asks), asks, strict=True):
        np.testing.assert_array_equal(made, arrays(whole)[ask.seed])
    (alone,) = model.run([Generate(3, 5, label=1)])
    (ours,) = arrays(model.module.generate(torch.tensor([3]), seed=5, labels=torch.tensor([1])))
    np.testing.assert_array_equal(alone, ours)
    assert model.batch("generate") == 8
    assert model.exact("generate")


def test_options_of_one_request_do_not_stay() -> None:
    options, _ = TOLD["EDM"]
    model = ServedRun("m", family("EDM").from_options(options).eval(), "random weights")
    plain = model.run([Generate(1)])[0]
    few = model.run([Generate(1, sampling=(("sampler", "euler"), ("steps", 3)))])[0]
    assert (plain != few).any()
    np.testing.assert_array_equal(model.run([Generate(1)])[0], plain)
    # On a CPU many steps gain nothing by company.
    assert model.batch("generate") == 1
    assert not model.exact("generate")
    with pytest.raises(ValueError, match="guidance is -1"):
        model.run([Generate(1, sampling=(("guidance", -1.0),))])
    assert model.module.sampled()["steps"] == 18


def test_styles_of_its_own_are_mixed_and_pictures_translated() -> None:
    model, content = served("FastStyle"), pixels(picture_bytes())
    assert model.facts.own_styles == ("a", "b")
    (made,) = model.run([Stylize(content, weights=(0.25, 0.75), alpha=0.5)])
    ours = model.module.stylize(as_tensor(content), Style(weights=[0.25, 0.75], alpha=0.5))
    np.testing.assert_array_equal(made, arrays(ours)[0])
    translator = served("CUT")
    pair = [Translate(pixels(picture_bytes(32, 32, seed=seed))) for seed in (0, 1)]
    together = translator.run(pair)
    for one, expected in zip(pair, together, strict=True):
        assert np.abs(translator.run([one])[0].astype(int) - expected).max() <= 1
    assert (together[0] != together[1]).any()
    assert pair[0].key == pair[1].key != Translate(pair[0].picture, size=16).key


def test_the_published_method_stylises_too() -> None:
    class Half:
        def stylize(self, content: torch.Tensor, style: Style, *, tile: int | None = None) -> torch.Tensor:
            return (content + style.pictures[0].mean()) * style.alpha

    model, content = ServedMethod("half", Half(), torch.device("cpu")), pixels(picture_bytes())
    (made,) = model.run([Stylize(content, (content,), alpha=0.5)])
    assert made.shape == content.shape
    with pytest.raises(ValueError, match="style is missing"):
        model.check(Stylize(content))


@pytest.mark.parametrize(
    ("name", "ask", "says"),
    [
        ("DCGAN", Generate(label=3), "label is 3; dcgan has classes 0 to 2"),
        ("DCGAN", Generate(sampling=(("steps", 4),)), "steps: dcgan is a DCGAN.*it makes a picture in one pass"),
        ("DCGAN", Translate(np.zeros((4, 4, 1), np.uint8)), "it can generate, not translate"),
        ("FastStyle", Stylize(np.zeros((4, 4, 3), np.uint8), (np.zeros((4, 4, 3), np.uint8),)), "styles of its own"),
        ("FastStyle", Stylize(np.zeros((4, 4, 3), np.uint8), weights=(1.0,)), "weights has 1 numbers for 2 styles"),
        ("CUT", Translate(np.zeros((4, 4, 3), np.uint8), direction="up"), "direction up: a CUT translates a-to-b"),
        ("CUT", Translate(np.zeros((4, 4, 3), np.uint8), style_seed=1), "it takes no styles"),
    ],
)
def test_what_it_cannot_do_is_one_line_before_it_is_queued(name: str, ask: Ask, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        served(name).check(ask)


def test_each_worker_has_its_own_options() -> None:
    model = ServedRun("m", family("EDM").from_options(TOLD["EDM"][0]).eval(), "random weights")
    other = model.again()
    assert isinstance(other, ServedRun)
    assert other.module is not model.module
    np.testing.assert_array_equal(model.run([Generate(2)])[0], other.run([Generate(2)])[0])
    assert tiny("DCGAN").own_styles == ()
