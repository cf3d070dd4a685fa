"""The first trial has the recipe's own values, wherever a search could have drawn them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.training.training import Training
from tune.baseline import NoBaseline, baseline
from tune.draw import draw
from tune.space import read_space
from tune.sweep import Objective, Sweep
from tune.trials import Trials, differing

CONFIG: dict[str, Any] = {
    "seed_everything": 3,
    "model": {
        "class_path": "GAN",
        "init_args": {"loss": "hinge", "r1_gamma": 1.0, "width": 32, "clip": None, "optimizer": {"lr": 2e-4}},
    },
}
SPACE = """
seed_everything: randint(0, 10)
model.loss: [hinge, wgan]
model.r1_gamma: {sample: "loguniform(0.1, 10)", when: {model.loss: [hinge]}}
model.lambda_gp: {sample: "loguniform(1, 100)", when: {model.loss: [wgan]}}
model.optimizer.lr: loguniform(1e-5, 1e-3)
model.width: choice([32, 64])
"""


def sweep_of(folder: Path, space: str = SPACE, **options: Any) -> Sweep:
    (folder / "space.yaml").write_text(space)
    return Sweep(folder, "gesso tune ...", [Objective("val/kl", "min")], 4, kimg=1, every_kimg=1, **options)


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_the_first_trial_is_the_recipe_and_the_others_stay_as_they_were(search: Any, tmp_path: Path) -> None:
    before = sweep_of(tmp_path, search=search)
    values = baseline(CONFIG, before, before.space)
    own = {"seed_everything": 3, "model.loss": "hinge", "model.r1_gamma": 1.0, "model.width": 32}
    assert before.space.active(values) == {**own, "model.optimizer.lr": 2e-4}
    assert differing(before.space, values) == []
    sweep = replace(before, baseline=values)
    assert draw(sweep, []) == values
    first = Trials(sweep).add(values)
    if search == "random":
        assert draw(sweep, [first]) == draw(before, [first])
    else:
        # What TPE cannot have drawn, it refuses.
        assert differing(sweep.space, draw(sweep, [first])) == []


@pytest.mark.parametrize(
    ("space", "options", "error"),
    [
        (
            "model.r1_gamma: loguniform(2, 10)",
            {},
            "model.r1_gamma is 1.0, which loguniform(2, 10) never draws",
        ),
        ("model.clip: uniform(0, 1)", {}, "the recipe's model.clip is None, which uniform(0, 1) never draws"),
        ("model.widht: [1, 2]", {}, "the recipe has no model.widht, which choice([1, 2]) never draws"),
        ("model.width: [16, 64]", {}, "the recipe's model.width is 32, which choice([16, 64]) never draws"),
        ("model.width: qrandint(30, 60, 3)", {"search": "tpe"}, "which qrandint(30, 60, 3) never draws"),
        ("model.width: grid([32, 64])", {}, "cells of a grid"),
        ("model.width: [32, 64]", {"scheduler": "pbt"}, "pbt changes the values"),
    ],
)
def test_why_there_is_none(space: str, options: dict[str, Any], error: str, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, space, **options)
    with pytest.raises(NoBaseline, match=re.escape(error)):
        baseline(CONFIG, sweep, sweep.space)


@pytest.mark.parametrize(
    ("recipe", "space", "options"),
    [
        ("mnist-vae", "vae", {"model.beta": 1.0}),
        ("sprites-tcvae", "tcvae", {"model.beta": 4.0}),
        ("sprites-factor-vae", "factor-vae", {"model.gamma": 10.0}),
        ("adain", "adain", {"model.style_weight": 10.0}),
        ("fast-style", "fast-style", {}),
        ("cap-vst", "cap-vst", {"model.cycle_weight": 10.0}),
        ("wct2", "wct2", {"model.feature_weight": 1.0}),
        ("mccnet", "mccnet", {"model.illumination_weight": 3000.0}),
        ("mnist-dcgan", "dcgan", {}),
        ("images-cyclegan", "cyclegan", {"model.lambda_identity": 0.5}),
        ("images-fastcut", "cut", {"model.lambda_nce": 10.0}),
    ],
)
def test_ready_spaces_hold_their_recipes(recipe: str, space: str, options: dict[str, Any], tmp_path: Path) -> None:
    from tune.space import find_space

    config = Training(recipe).parse().config.as_dict()
    sweep = sweep_of(tmp_path, find_space(space).read_text())
    values = baseline(config, sweep, read_space(sweep.path / "space.yaml"))
    assert {name: values[name] for name in options} == options
    assert all(value is not None for value in values.values())
