"""`gesso translate`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "translate",
        help="put pictures of one domain into another, with a run of your own",
        description="Translates pictures, and folders of them, with a run that was trained on two sets without pairs.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="run, checkpoint or exported file")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE_OR_FOLDER")
    parser.add_argument("--direction", metavar="B-TO-A", help="which way (default: the run's first, mostly a-to-b)")
    parser.add_argument("--size", type=int, metavar="N", help="longer side in pixels (default: the picture's)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", metavar="FILE_OR_FOLDER", help="default: PICTURE_OR_FOLDER-translated")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.size is not None and arguments.size < 1:
        raise ValueError("--size must be 1 or more")
    from rich.console import Console
    from rich.progress import Progress

    from launch.inference import folders
    from launch.inference.loading import load_family
    from launch.inference.translation import translate_file
    from launch.training.hardware import best_device

    planned = folders.plan([Path(name) for name in arguments.pictures], arguments.out, "translated")
    module, _ = load_family(arguments.run_folder, average=not arguments.raw, device=best_device(arguments.device))
    direction = module.known_direction(arguments.direction)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("translate", total=len(planned.jobs))
        failed = folders.run(
            planned,
            lambda file, target: translate_file(module, file, target, direction, size=arguments.size),
            lambda done: bar.update(task, completed=done),
        )
    print(planned.out)
    return int(failed > 0)
