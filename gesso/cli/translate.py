"""`gesso translate`."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from gesso.cli import publishing
from gesso.common.arguments import seed

if TYPE_CHECKING:
    from torch import Tensor


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "translate",
        help="put pictures of one domain into another, with a run of your own",
        description="Translates pictures, and folders of them, with a run that was trained on two sets without pairs.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="run, checkpoint or exported file")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE_OR_FOLDER")
    parser.add_argument("--direction", metavar="B-TO-A", help="which way (default: the run's first, mostly a-to-b)")
    styles = parser.add_mutually_exclusive_group()
    styles.add_argument("--styles", type=int, metavar="N", help="N results of each picture, in styles drawn at random")
    styles.add_argument("--style", metavar="PICTURE", help="in the style of this picture of the other domain")
    parser.add_argument("--seed", type=seed, help="of --styles (default: 0)")
    parser.add_argument("--size", type=int, metavar="N", help="longer side in pixels (default: the picture's)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", metavar="FILE_OR_FOLDER", help="default: PICTURE_OR_FOLDER-translated")
    publishing.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.size is not None and arguments.size < 1:
        raise ValueError("--size must be 1 or more")
    if arguments.styles is not None and arguments.styles < 1:
        raise ValueError("--styles must be 1 or more")
    if arguments.seed is not None and arguments.styles is None:
        raise ValueError("--seed is of --styles, which are drawn at random: nothing else here is")
    from rich.console import Console
    from rich.progress import Progress

    from launch.inference import folders
    from launch.inference.loading import load_family
    from launch.inference.translation import style_of, translate_file
    from launch.training.hardware import best_device

    inputs = [Path(name) for name in arguments.pictures]
    count = arguments.styles or 1
    goals = [_goal(arguments.out, number, count) for number in range(1, count + 1)]
    plans = [folders.plan(inputs, out, done, results=results) for out, done, results in goals]
    finish = publishing.asked(arguments, [job.target for planned in plans for job in planned.jobs])
    module, origin = load_family(arguments.run_folder, average=not arguments.raw, device=best_device(arguments.device))
    direction = module.known_direction(arguments.direction)
    styles: list[Tensor | None] = [None]
    if arguments.styles is not None:
        module.require("translate_in_style")
        styles = [*module.draw_styles(count, seed=arguments.seed or 0, direction=direction).split(1)]
    if arguments.style is not None:
        styles = [style_of(module, Path(arguments.style), direction)]
    if finish is not None:
        from launch.provenance import facts_of
        from launch.publishing.licences import style_facts

        finish = finish.with_facts(
            facts_of(
                origin,
                type(module).__name__,
                direction=direction,
                seed=None if arguments.styles is None else arguments.seed or 0,
                styles=style_facts([Path(arguments.style)] if arguments.style else []),
            )
        )
    failed = 0
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("translate", total=sum(len(planned.jobs) for planned in plans))
        for planned, style in zip(plans, styles, strict=True):
            convert = functools.partial(
                translate_file, module, direction=direction, size=arguments.size, style=style, finish=finish
            )
            failed += folders.run(planned, convert, lambda done: bar.advance(task))
            print(planned.out)
    return int(failed > 0)


def _goal(out: str | None, number: int, count: int) -> tuple[str | None, str, Path | None]:
    """For style ``number`` of ``count``: the results' ``--out``, the end of their names without one, and the folder of
    all styles' results."""
    if count == 1:
        return out, "translated", None
    done, results = f"translated-{number}", None
    if out:
        path = Path(out)
        results = None if path.suffix else path
        out = str(path.with_stem(f"{path.stem}-{number}") if results is None else path / f"style-{number}")
    return out, done, results
