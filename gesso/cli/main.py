"""`gesso`: one command line for everything. Answers --help without importing torch."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from gesso.cli import (
    average,
    bias,
    checkpoint,
    detector,
    directions,
    edit,
    encode,
    evaluate,
    export,
    fetch,
    generate,
    memorised,
    plan,
    project,
    prune,
    push,
    rate,
    recipes,
    report,
    serve,
    shards,
    sign,
    stylize,
    translate,
    ui,
    verify,
)
from gesso.common.locales import use_utf8
from gesso.common.text import one_line
from launch.training.signals import listening

#: Verbs that LightningCLI parses: their options are those of the recipe.
TRAINING = {
    "fit": "train: gesso fit --config RECIPE [overrides], or gesso fit --resume RUN",
    "validate": "run the validation loop: gesso validate --config RECIPE --checkpoint PATH",
    "test": "run the test loop: gesso test --config RECIPE --checkpoint PATH",
}

#: Libraries whose own errors are about what they were asked for, by their first module.
LIBRARIES = {
    "lightning": "Lightning",
    "wandb": "W&B",
    "safetensors": "safetensors",
    "safetensors_rust": "safetensors",
    "jsonargparse": "the options",
    "yaml": "YAML",
    "ray": "Ray",
    "optuna": "Optuna",
    "PIL": "Pillow",
}


def parser() -> argparse.ArgumentParser:
    """The top-level parser; each verb adds its own."""
    top = argparse.ArgumentParser(
        prog="gesso", description="Distributed training for image generation and style transfer."
    )
    top.add_argument("--version", action="version", version=f"gesso {version('gesso')}")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb, what in TRAINING.items():
        verbs.add_parser(verb, help=what, add_help=False).set_defaults(verb=verb)
    # The rooms above launch that the command line leads to.
    from gesso.cli import slurm, tune

    for command in (
        plan,
        generate,
        stylize,
        translate,
        sign,
        verify,
        prune,
        project,
        directions,
        edit,
        rate,
        evaluate,
        memorised,
        detector,
        bias,
        average,
        checkpoint,
        export,
        serve,
        push,
        shards,
        encode,
        fetch,
        recipes,
        report,
        ui,
        slurm,
        tune,
    ):
        command.add_parser(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script: returns the exit code.

    A mistake of the user's (ValueError, FileNotFoundError) ends with 2, a fault of the surroundings with 1, both with
    one line that names the thing and the remedy; ``--debug`` anywhere shows the traceback as well.
    """
    if argv is None:
        use_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        if arguments and arguments[0] in TRAINING:
            # Before torch is loaded: a warning that comes meanwhile must not be lost.
            with listening() if arguments[0] == "fit" else contextlib.nullcontext():
                from gesso.cli import fit

                return fit.run(arguments[0], arguments[1:])
        top = parser()
        parsed, overrides = top.parse_known_args(arguments)
        if overrides and "overrides" not in parsed:
            top.error(f"unrecognized arguments: {' '.join(overrides)}")
        parsed.overrides = overrides
        return parsed.run(parsed)
    except KeyboardInterrupt:
        print("gesso: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"gesso: {explain(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | FileNotFoundError) else 1


def explain(error: Exception) -> str:
    """An error in one line. One that no code of ours put into words says that it is a defect."""
    own_words = isinstance(error, OSError) and len(error.args) == 2 and error.filename is None
    message = one_line(error.args[1]) if own_words else one_line(error)
    if isinstance(error, ValueError | OSError | RuntimeError | ImportError):
        return message
    if isinstance(error, MemoryError):
        return f"out of memory: {message}"
    library = LIBRARIES.get(type(error).__module__.partition(".")[0])
    if library:
        return f"{library}: {message} (--debug shows where)"
    return f"unexpected {type(error).__name__}: {message} (run again with --debug and report it)"


if __name__ == "__main__":
    sys.exit(main())
