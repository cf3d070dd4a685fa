"""Recipes and overrides as plain data: the same options as LightningCLI's own command line makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launch.training.layers import layers, set_option
from launch.training.lightning_cli import Parsed, list_options
from launch.training.recipes import recipes, resolve_recipe
from launch.training.training import Training

OVERRIDES: dict[str, object] = {
    "run.kimg": 3.2,
    "run.name": "123",
    "model.latent_dim": 8,
    "data.path": "shards/other",
    "trainer.num_nodes": 2,
    "trainer.precision": "32-true",
    "trainer.callbacks": [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "x"}}],
    "evaluation.metrics": [],
    "checkpoints.monitor": None,
    "seed_everything": 7,
}
WRITTEN = {
    **{name: str(value) for name, value in OVERRIDES.items()},
    "evaluation.metrics": "[]",
    "checkpoints.monitor": "null",
    "trainer.callbacks": "[{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: x}}]",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(recipes()))
def test_values_and_words_are_the_same_options(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {
        key: value
        for key, value in OVERRIDES.items()
        if "model." not in key or name.endswith(("-dcgan", "-wgan-gp", "-stylegan2", "-r3gan", "vae"))
    }
    ours = Training(name, overrides).parse().text()
    assert Training(name, {key: WRITTEN[key] for key in overrides}).parse().text() == ours
    # LightningCLI's own parser of a command line.
    monkeypatch.setattr("sys.argv", ["gesso"])
    words = [f"--{key}={WRITTEN[key]}" for key in overrides]
    with pytest.raises(SystemExit):
        list_options([f"--config={resolve_recipe(name)}", *words, "--print_config=skip_unset"])
    theirs = capsys.readouterr().out
    assert theirs.count("\n") > 20
    for line in theirs.splitlines()[1:]:
        assert line in ours, line


def test_a_recipe_over_another() -> None:
    options = {"generator": {"width": 8}, "channels": 1}
    first = {"model": {"class_path": "DCGAN", "init_args": options}, "run": {"kimg": 5, "name": "a"}}
    (laid,) = layers(
        [first, {"run": {"kimg": 6}, "model": {"init_args": {"generator": {"width": 16}}}}], {"model.channels": 3}
    )
    assert laid == {
        "model": {
            "class_path": "lightning_modules.gan.dcgan.DCGAN",
            "init_args": {"generator": {"width": 16}, "channels": 3},
        },
        "run": {"kimg": 6, "name": "a"},
    }
    assert options == {"generator": {"width": 8}, "channels": 1}


def test_an_unknown_section_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("evalutaion: {metrics: []}\n")
    with pytest.raises(ValueError, match=r"odd\.yaml: a recipe has no section 'evalutaion'; did you mean evaluation\?"):
        Training(file).layers()
    with pytest.raises(ValueError, match=r"^a recipe has no section 'a'; there are seed_everything, trainer, model"):
        Training(["mnist-vae", {"a": 1}]).layers()


@pytest.mark.slow
def test_another_class_keeps_the_options_that_it_shares() -> None:
    parsed = Training("mnist-dcgan", {"model": "VAE", "model.latent_dim": 5}).parse()
    model: Any = parsed.config.model
    assert model.class_path == "lightning_modules.autoencoder.vae.VAE"
    # The recipe's own; of VAE's options, not of DCGAN's.
    assert (model.init_args.channels, model.init_args.latent_dim) == (1, 5)
    assert "r1_gamma" not in model.init_args
    assert isinstance(parsed, Parsed)


def test_names_of_options() -> None:
    layer: dict[str, object] = {"trainer": {"callbacks": ["EarlyStopping"]}, "model": {"class_path": "X"}}
    for name, value in {
        "trainer.callbacks.monitor": "fid",
        "trainer.callbacks+": "RichProgressBar",
        "model.optimizer.lr": 1,
        "data.path": "p",
        "run": {"kimg": 1},
        "run.kimg": 2,
    }.items():
        set_option(layer, name, value)
    assert layer == {
        "trainer": {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "fid"}}, "RichProgressBar"]},
        "model": {"class_path": "X", "init_args": {"optimizer": {"lr": 1}}},
        "data": {"init_args": {"path": "p"}},
        "run": {"kimg": 2},
    }
    with pytest.raises(ValueError, match=r"run\.kimg\.x: kimg is 2, which has no options"):
        set_option(layer, "run.kimg.x", 1)


def test_a_mapping_changes_the_options_that_it_names() -> None:
    """As its options by their names would, one by one."""
    recipe = {"run": {"root": "here", "wandb": "disabled"}, "model": {"class_path": "DCGAN", "init_args": {"lr": 1.0}}}
    whole: dict[str, object] = {"run": {"kimg": 0.1}, "trainer": {"devices": 1}, "model": {"init_args": {"ema": 2}}}
    named = {"run.kimg": 0.1, "trainer.devices": 1, "model.ema": 2}
    assert layers([recipe], whole) == layers([recipe], named)
    assert layers([recipe], {"run": "{kimg: 0.1}"}, sections=("run", "model")) == layers([recipe], {"run.kimg": 0.1})
    # Another class has other options.
    callback = {"trainer": {"logger": {"class_path": "A", "init_args": {"x": 1}}}}
    (layer,) = layers([callback], {"trainer.logger": {"class_path": "B"}})
    assert layer == {"trainer": {"logger": {"class_path": "B"}}}


def test_numbers_and_paths_of_any_library_are_plain_values() -> None:
    given: dict[str, object] = {
        "run.kimg": np.float32(0.5),
        "data.global_batch_size": np.int64(20),
        "data.path": Path("sets/a"),
        "data.flip": np.bool_(True),
        "evaluation.metrics": np.array(["fid", "kid"]),
        "model.width": torch.tensor(8),
    }
    wanted: dict[str, object] = {
        "run.kimg": 0.5,
        "data.global_batch_size": 20,
        "data.path": "sets/a",
        "data.flip": True,
        "evaluation.metrics": ["fid", "kid"],
        "model.width": 8,
    }
    assert layers([], given) == layers([], wanted)
    (layer,) = layers([{"run": {"root": Path("x"), "kimg": np.int64(3)}}], {})
    assert layer == {"run": {"root": "x", "kimg": 3}}
    assert type(layer["run"]["kimg"]) is int  # type: ignore[index]


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ({}, ["run.kimg=1"], "overrides map options to values, as {'run.kimg': 20}; they are a list"),
        ({}, {1: 2}, "1 in the overrides is no option's name"),
        (7, {}, "a recipe is a name, a file or a mapping, not a int"),
    ],
)
def test_what_is_no_recipe_or_override_is_named(recipe: Any, overrides: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        layers([recipe], overrides)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("run.kimg", "a number"),
        ("run.name", "text"),
        ("data.flip", "true or false"),
        ("checkpoints.keep_last", "a whole"),
    ],
)
def test_nothing_is_no_value_where_one_is_needed(name: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is null; it must be {what}"):
        Training("mnist-dcgan", {name: None}).parse()
    assert Training("mnist-dcgan", {"checkpoints.monitor": None}).parse()
