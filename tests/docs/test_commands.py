"""The commands that the README and the pages name: verbs, options and recipes are there; nothing is run."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NoReturn

import pytest

from gesso.cli import fit
from gesso.cli.main import TRAINING, parser
from launch.training.training import Training
from tune.space import find_space

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Recipes of the packages that a page tells how to write.
OF_PACKAGES = {file.stem for file in (ROOT / "tests" / "packages").glob("*/*/configs/*.yaml")}
#: Their metrics.
METRICS = {
    name
    for file in (ROOT / "tests" / "packages").glob("*/pyproject.toml")
    for name in tomllib.loads(file.read_text())["project"]["entry-points"].get("gesso.metrics", {})
}
#: What stands for a number where the text leaves it open.
NUMBERS = {"N", "M", "R", "KIMG", "GIB", "GB/S"}


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """Each command line of a page, and whether it is whole, as in a block, or only named in the text."""
    text = page.read_text()
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"\s*\$?\s*gesso ", line):
                yield line.strip().removeprefix("$").strip(), True
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`(gesso [^`]+)`", plain):
        for line in alternatives(" ".join(code.replace("\\|", "|").split())):
            yield line, False


def alternatives(line: str) -> list[str]:
    """``shards build|index`` is two commands, ``NAME... | --list`` as well; what stands in brackets may be left out."""
    line = re.sub(r"(?<= )\[[^\]]*\]", "", line)
    before, _, after = line.partition(" | ")
    if after:
        return [*alternatives(before), *alternatives(f"{' '.join(before.split()[:2])} {after}")]
    words = [word.removesuffix("...").split("|") for word in line.split() if word != "..."]
    return [" ".join(choice) for choice in product(*words)]


def check(line: str, whole: bool) -> None:
    """Parses a command.

    Raises:
        ValueError, FileNotFoundError: what is wrong with it.
    """
    words = ["fid" if word in METRICS else word for word in shlex.split(line, comments=True)[1:]]
    if words[0] in TRAINING:
        if not whole and len(words) == 2:  # as in "which `gesso fit --config` takes"
            words.append("RECIPE")
        return check_training(words[1:])
    try:
        parsed, overrides = parser().parse_known_args(["1" if word in NUMBERS else word for word in words])
    except ValueError as error:
        # `gesso slurm` in the text is no command to type.
        if whole or "arguments are required" not in str(error):
            raise
        return None
    if overrides and "overrides" not in parsed:
        raise ValueError(f"unrecognized arguments: {' '.join(overrides)}")
    if words[:2] == ["slurm", "submit"]:
        training = [word for word in parsed.training if word != "--"]
        check_training(training[1:])
    elif getattr(parsed, "config", None):
        check_training([*(f"--config={name}" for name in parsed.config), *overrides])
    if isinstance(space := getattr(parsed, "space", None), str) and space != "SPACE" and not space.endswith(".yaml"):
        find_space(space)
    return None


def check_training(words: Sequence[str]) -> None:
    """The options of a training, against its recipe; a recipe that the reader has yet to write may be any."""
    if fit.asks_for_help(words):
        return
    given = fit.parse(words)
    named = [str(recipe) for recipe in given.recipes] if not given.resume else []
    known = [recipe for recipe in named if "." not in recipe and recipe != "RECIPE"]
    if OF_PACKAGES.intersection(known):
        return  # its own test installs it
    recipe = known or ["fast-style" if any("style" in name for name in given.overrides) else "mnist-dcgan"]
    Training(recipe, given.overrides).parse()


@pytest.fixture(autouse=True)
def errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def error(self: argparse.ArgumentParser, message: str) -> NoReturn:
        raise ValueError(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", error)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path) -> None:
    wrong = []
    for line, whole in commands(page):
        try:
            check(line, whole)
        except (ValueError, FileNotFoundError) as error:
            wrong.append(f"{line}\n    {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_what_is_wrong_is_found() -> None:
    for line, says in (
        ("gesso genrate runs/NAME", "genrate"),
        ("gesso generate runs/NAME --grdi grid.png", "--grdi"),
        ("gesso fit --config mnist-dcgam", "did you mean mnist-dcgan"),
        ("gesso fit --config mnist-dcgan --model.r3_gamma 5", "r3_gamma"),
        ("gesso slurm submit --nodes 4 -- fit --config mnist-vae --data.pth x", "pth"),
        ("gesso tune --config mnist-vae --space nothing-like-it --metric fid", "nothing-like-it"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(says)):
            check(line, whole=True)
    assert alternatives("gesso rate make|summary") == ["gesso rate make", "gesso rate summary"]
    assert alternatives("gesso fetch NAME... | --list") == ["gesso fetch NAME", "gesso fetch --list"]


def test_the_readme_names_each_verb_and_each_make_target_it_names_is_there() -> None:
    readme = PAGES[0].read_text()
    (verbs,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert [verb for verb in verbs.choices if f"gesso {verb}" not in readme] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets
