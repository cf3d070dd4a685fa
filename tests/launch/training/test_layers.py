"""Recipes and overrides as plain data: the same options as LightningCLI's own command line makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
        key: value for key, value in OVERRIDES.items() if "model." not in key or "gan" in name or "vae" in name
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
