"""Any value of any option of every recipe is a right one, or one line that names the option."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonargparse import Namespace

from gesso.cli.main import explain
from gesso.common.text import one_line
from launch.training.recipes import recipes
from launch.training.training import Training

NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, 1, -1, 2**63, 1e-300, math.inf, -math.inf, math.nan, 0.5])
)
WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "null", ".nan", ".inf", "1e400", "010", "1:30", "yes", "[", "{a: 1}", "[1, x]", "&a [*a]"]),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
VALUES = st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(WORDS, PLAIN, max_size=2))


def paths(options: Namespace, prefix: str = "") -> Iterator[str]:
    for name, value in vars(options).items():
        path = prefix if name == "init_args" else f"{prefix}{name}"
        if name != "init_args":
            yield path
        if isinstance(value, Namespace):
            yield from paths(value, path if name == "init_args" else f"{path}.")


@cache
def options_of(recipe: str) -> list[str]:
    return list(paths(Training(recipe).parse().config))


@st.composite
def overrides(draw: st.DrawFn) -> tuple[str, str, object]:
    recipe = draw(st.sampled_from(sorted(recipes())))
    return recipe, draw(st.sampled_from(options_of(recipe))), draw(VALUES)


def check(recipe: str, option: str, value: object) -> None:
    try:
        Training(recipe, {option: value}).parse()
    except (ValueError, OSError) as error:
        said = one_line(explain(error))
        assert "report it" not in said
        # A class is named by its kind.
        names = {option, option.rpartition(".")[2], option.partition(".")[0], "family", "data module"}
        assert any(name in said for name in names), f"{option}: {said}"
        assert len(said) < 500, said


@given(overrides())
@example(("mnist-dcgan", "model.gradient_clip_norm", -1))
@example(("mnist-vae", "ema.half_life_kimg", math.nan))
@example(("mnist-dcgan", "model.class_path", {"a": 1}))
@example(("adain", "model.layer_weights", [1, 2]))
@example(("mnist-dcgan", "trainer.plugins", "[1, x]"))
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_value_is_right_or_its_option_is_named(case: tuple[str, str, object]) -> None:
    check(*case)


@pytest.mark.slow
@given(overrides())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_values_are_right_or_their_options_are_named(case: tuple[str, str, object]) -> None:
    check(*case)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("run.kimg", ".inf", "run.kimg is inf; it must be 0.001 or more"),
        ("run.kimg", 1e-9, "run.kimg is 1e-09; it must be 0.001 or more"),
        ("run.kimg", "nan", "run.kimg is nan; it must be a number"),
        ("evaluation.every_kimg", math.nan, "evaluation.every_kimg is nan; it must be more than 0"),
        ("evaluation.reference_samples", 0, "evaluation.reference_samples is 0; it must be 10 or more"),
        ("ema.ramp_up", -1, "ema.ramp_up is -1.0; it must be 0 or more"),
        ("model.gradient_clip_norm", -1, "model.gradient_clip_norm is -1.0; it must be more than 0"),
        ("model.latent_dim", 0, "model.latent_dim is 0; it must be 1 or more"),
        ("model.generator.width", 0, "model.generator.width is 0; it must be 1 or more"),
        ("seed_everything", -1, "seed_everything is -1; it must be a whole number from 0 to 4294967295"),
        ("seed_everything", True, "seed_everything is true; it must be a whole number from 0 to 4294967295"),
        ("model.styles", 4, "model: DCGAN has no option styles; `gesso fit --model.help DCGAN` lists its options"),
        ("checkpoints.mode", "up", "checkpoints.mode is up; it must be one of 'min', 'max' or null"),
        ("evaluation.metrics", "kid", "evaluation.metrics is kid; it must be a list or null"),
        ("ema", "x", "ema is 'x'; it must map options to values"),
        ("ema", {"": None}, "ema has no option ''; `gesso fit --help` lists its options"),
        ("checkpoints", {"a b": 1}, "checkpoints has no option 'a b'; `gesso fit --help` lists its options"),
        ("evaluation", {"x": {".": 1}}, "evaluation.x has no option '.'; `gesso fit --help` lists its options"),
        (
            "data.class_path",
            "nowhere.Thing",
            "data: nowhere.Thing cannot be imported (No module named 'nowhere'): check its path, and that its package "
            "is installed or its folder on PYTHONPATH",
        ),
        (
            "trainer.callbacks",
            [{"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"durtion": 3}}],
            "trainer.callbacks: Timer has no option durtion; "
            "`gesso fit --trainer.callbacks.help lightning.pytorch.callbacks.Timer` lists its options",
        ),
    ],
)
def test_what_is_said(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Training("mnist-dcgan", {option: value}).parse()
