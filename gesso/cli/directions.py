"""`gesso directions`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gesso.common.arguments import seed

if TYPE_CHECKING:
    from torch import Tensor

    from launch.inference.w_files import Directions
    from lightning_modules.kinds.w_space import WSpace


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "directions",
        help="find directions along which a StyleGAN's pictures change",
        description="sefa: of the weights alone (Shen and Zhou 2021). pca: of w (GANSpace, Haerkoenen et al. 2020). A "
        "scorer: its score rises along the direction (InterFaceGAN, Shen et al. 2020).",
    )
    parser.add_argument("source", metavar="RUN", help="run, checkpoint or exported file")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--method", choices=("sefa", "pca"))
    how.add_argument(
        "--scorer",
        nargs="+",
        metavar="NAME",
        help="brightness, hue, warmth, stroke-width, slant, or an installed package's (entry points gesso.scorers)",
    )
    parser.add_argument("--num", type=int, metavar="K", help="sefa and pca: how many directions (default 10)")
    parser.add_argument("--layers", metavar="A-B", help="only these layers, such as 0-3 for coarse ones (default: all)")
    parser.add_argument("--samples", type=int, metavar="N", help="default 10,000, with --scorer 4,000")
    parser.add_argument(
        "--share", type=float, metavar="S", help="scorers: that count as high, and as low (default 0.2)"
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="FILE[:NAME]", help="scorers: directions that stay as they are"
    )
    parser.add_argument("--apart", action="store_true", help="several scorers: each leaves the others as they are")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="seed of the samples (default 0)")
    parser.add_argument("--label", type=int, metavar="C", help="samples of this class alone (conditional models)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", help="default: METHOD-directions.safetensors")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from gesso.cli import sampling
    from launch.inference.loading import load_family
    from launch.inference.w_files import check_target, parse_layers, save_directions
    from launch.training.hardware import best_device

    out = check_target(
        arguments.out or Path(f"{arguments.method or '-'.join(arguments.scorer)}-directions.safetensors")
    )
    module, origin = load_family(arguments.source, average=not arguments.raw, device=best_device(arguments.device))
    space = module.w_space()
    layers = None if arguments.layers is None else parse_layers(arguments.layers, space)
    label = sampling.label(module, arguments.label)
    found = _found(arguments, space, layers, label, sampling.described(origin))
    save_directions(found, out)
    meaning = {"sefa": "eigenvalue", "pca": "share of the variance", "svm": "correlation with the score"}[found.method]
    for name, value in zip(found.names, found.values.tolist(), strict=True):
        print(f"{name}: {meaning} {value:.3g}")
    print(out)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises a ValueError where options do not fit each other."""
    for option, least in (("num", 1), ("samples", 10), ("batch_size", 1)):
        if (value := getattr(arguments, option)) is not None and value < least:
            raise ValueError(f"--{option.replace('_', '-')} {value}: must be {least} or more")
    if arguments.share is not None and not 0 < arguments.share <= 0.5:
        raise ValueError(f"--share {arguments.share:g}: must be more than 0 and 0.5 or less")
    if arguments.scorer and arguments.num is not None:
        raise ValueError("--num is for --method; each scorer has one direction")
    only = ("share", "without", "apart")
    if not arguments.scorer and (given := next((name for name in only if getattr(arguments, name)), None)):
        raise ValueError(f"--{given} is for --scorer")


def _found(
    arguments: argparse.Namespace, space: WSpace, layers: tuple[int, int] | None, label: Tensor | None, origin: str
) -> Directions:
    """The directions of the method or the scorers that the command names."""
    from rich.console import Console
    from rich.progress import Progress

    from launch.inference.direction_finding import Samples, closed_form, scored
    from launch.inference.w_files import named_direction
    from lightning_modules.pictures.scores import scorer

    count = arguments.samples or (4000 if arguments.scorer else 10_000)
    samples = Samples(count, arguments.seed, label, arguments.batch_size)
    if arguments.method:
        # As many as there are dimensions, where those are fewer than 10.
        num = min(10, space.w_dim) if arguments.num is None else arguments.num
        return closed_form(space, arguments.method, samples, count=num, layers=layers, origin=origin)
    scorers = {name: scorer(name) for name in dict.fromkeys(arguments.scorer)}
    others = []
    for text in arguments.without:
        directions, number = named_direction(text, space)
        others.append(directions.vectors[number][None])
    console = Console(stderr=True)
    # In a log it would leave an empty line beside an error's.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("score samples", total=count)
        return scored(
            space,
            scorers,
            samples,
            share=arguments.share or 0.2,
            others=others,
            apart=arguments.apart,
            layers=layers,
            origin=origin,
            progress=lambda done: bar.update(task, completed=done),
        )
