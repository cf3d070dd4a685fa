"""`gesso fit|validate|test`: from arguments to a training, and from what came of it to an exit code."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.training.training import Run, Training


def run(verb: str, argv: Sequence[str]) -> int:
    """Runs ``gesso fit``, ``validate`` or ``test``; returns the exit code."""
    if asks_for_help(argv):
        return show_help(argv)
    training = parse(argv, command=shlex.join(["gesso", verb, *argv]))
    if verb == "fit":
        return exit_code(training.fit())
    measured = training.validate() if verb == "validate" else training.test()
    if measured.rank == 0:
        for name, value in sorted(measured.metrics.items()):
            print(f"{name:32} {value:.6g}")
    return 0


def exit_code(run: Run) -> int:
    """A shell's for a signal; under SLURM one of its own, since srun kills with signals, too."""
    from launch.training.signals import EXIT_REQUEUE

    # What starts the ranks kills the first one, busy with the report, when another ends with an error.
    if not run.signal or run.rank > 0:
        return 0
    return EXIT_REQUEUE if "SLURM_PROCID" in os.environ else 128 + run.signal


def parse(argv: Sequence[str], *, command: str = "") -> Training:
    """The training that arguments describe: ``--config``, ``--resume``, ``--checkpoint``, and options of the recipe.

    Args:
        argv: without the verb.
        command: what was typed.

    Raises:
        ValueError: a word that is no option, or an option without a value.
    """
    from launch.training.training import Training

    recipes: list[str] = []
    own: dict[str, str] = {}
    overrides: dict[str, object] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            raise ValueError(f"unrecognized arguments: {word}")
        name, equals, value = word.partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise ValueError(f"{word}: a value is missing: write {word} VALUE or {word}=VALUE")
            value = following
        option = name.removeprefix("-").removeprefix("-")
        if option == "config" or name == "-c":
            recipes.append(value)
        elif option in ("resume", "checkpoint"):
            own[option] = value
        else:
            # Asked for twice, the last one holds, and it holds at its own place.
            overrides.pop(option, None)
            overrides[option] = value
    # The ranks of one training share a folder, which the process that starts them passes on.
    folder = os.environ.get("GESSO_RUN")
    return Training(
        recipes,
        overrides,
        resume=own.get("resume"),
        checkpoint=own.get("checkpoint"),
        folder=Path(folder) if folder else None,
        command=command,
    )


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether arguments ask for the options instead of a training: ``--help``, ``--model.help DCGAN``..."""
    names = [word.partition("=")[0] for word in argv]
    return any(name in ("-h", "--help", "--print_config") or name.endswith(".help") for name in names)


def show_help(argv: Sequence[str]) -> int:
    """Lists options of a recipe, of a family (``--model.help DCGAN``) or of a data module, or prints a config."""
    from launch.training.lightning_cli import list_options

    return list_options(parse_help(argv))


def parse_help(argv: Sequence[str]) -> list[str]:
    """The arguments with packaged recipes' names as files."""
    from launch.training.recipes import resolve_recipe

    arguments = list(argv)
    for position, word in enumerate(arguments):
        if word.startswith("--config="):
            arguments[position] = f"--config={resolve_recipe(word.removeprefix('--config='))}"
        elif word in ("--config", "-c") and position + 1 < len(arguments):
            arguments[position + 1] = str(resolve_recipe(arguments[position + 1]))
    return arguments
