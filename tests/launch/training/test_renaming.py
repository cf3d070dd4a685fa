"""Older names of options on the command line, in recipes and in the configs of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.training import renaming
from launch.training.recipes import resolve_recipe
from launch.training.training import Training


def options(recipe: Any, overrides: dict[str, object] | None = None) -> dict[str, Any]:
    renaming._report_once.cache_clear()
    text = Training(recipe, overrides or {}).parse().text()
    return yaml.safe_load(text)["model"]["init_args"]


def plain() -> dict[str, Any]:
    """`mnist-dcgan` with the same optimizers as when the names were older, whatever it has come to since."""
    recipe = yaml.safe_load(Path(resolve_recipe("mnist-dcgan")).read_text())
    for name in ("generator_optimizer", "discriminator_optimizer"):
        recipe["model"]["init_args"][name] = {"lr": 4e-4}
    return recipe


@pytest.mark.parametrize("section", ["model", "model.init_args"])
@pytest.mark.slow
def test_an_override_says_the_new_name_in_one_line(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    older = {f"{section}.width": "8", f"{section}.generator_lr": "1e-3", f"{section}.spectral_norm": "true"}
    found = options(plain(), older)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model.width is now model.generator.width and model.discriminator.width; model.generator_lr is now" in said
    new = {"model.generator.width": 8, "model.discriminator.width": 8, "model.generator_optimizer.lr": 1e-3}
    assert found == options(plain(), {**new, "model.discriminator.spectral_norm": True})
    assert not capsys.readouterr().err
    # What nobody named keeps the recipe's value, or the paper's.
    assert (found["generator_optimizer"]["lr"], found["generator_optimizer"]["beta1"]) == (1e-3, 0.5)
    assert found["discriminator_optimizer"]["lr"] == 4e-4
    assert found["generator"]["attention_resolution"] == 0


@pytest.mark.slow
def test_a_recipe_with_older_names_is_the_same_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = plain()
    for name in ("generator", "discriminator", "generator_optimizer", "discriminator_optimizer"):
        del recipe["model"]["init_args"][name]
    # As people write them; YAML 1.1 takes 4e-4 for a word.
    older = "width: 32\n    generator_lr: 4e-4\n    discriminator_lr: 4.0e-4\n    loss:"
    file = tmp_path / "older.yaml"
    file.write_text(yaml.safe_dump(recipe).replace("loss:", older))
    found = options(file, {"model.generator.width": 16})
    assert capsys.readouterr().err.count("\n") == 1
    assert found == options(plain(), {"model.generator.width": 16})


@pytest.mark.slow
def test_an_older_name_goes_over_a_recipes_new_one_and_the_last_one_wins() -> None:
    assert options("mnist-dcgan", {"model.width": 8})["generator"]["width"] == 8
    both = {"model.generator.width": 16, "model.width": 8}
    assert options("mnist-dcgan", both)["generator"]["width"] == 8
    assert options("mnist-dcgan", dict(reversed(both.items())))["generator"]["width"] == 16


def test_the_config_of_a_run_names_the_family_where_it_was(tmp_path: Path) -> None:
    written = {"class_path": "lightning_modules.dcgan.DCGAN", "init_args": {"resolution": 32, "width": 8}}
    found = options({"model": written, "data": {"class_path": "ShardData", "init_args": {"path": "x"}}})
    assert found["discriminator"]["width"] == 8


@pytest.mark.slow
def test_a_name_that_became_a_groups_is_understood_both_ways() -> None:
    for overrides in ({"model.network": "light"}, {"model.network.kind": "light"}):
        network = options("fast-style", overrides)["network"]
        assert (network["kind"], network["gradient_checkpointing"]) == ("light", False)
