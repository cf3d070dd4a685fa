"""`gesso edit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gesso.common.arguments import seed

if TYPE_CHECKING:
    from torch import Tensor

    from launch.inference.w_editing import Sources
    from lightning_modules.core.family import ImageFamily

#: Of a direction, in standard deviations of w along it.
AMOUNTS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
#: What shows each frame, in milliseconds.
PACE = 40


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "edit",
        help="change a StyleGAN's pictures: along a direction, by mixed styles, truncation, from one to the next",
        description="Pictures are those of `gesso generate` with the same seed, or those that `gesso project` found.",
    )
    parser.add_argument("source", metavar="RUN", help="run, checkpoint or exported file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--direction", metavar="FILE[:NAME]", help="of `gesso directions`: rows of pictures along it")
    what.add_argument(
        "--mix", metavar="A-B", help="each row's picture with these layers, such as 0-3, of each column's"
    )
    what.add_argument("--truncations", nargs="+", type=float, metavar="PSI", help="rows of pictures, such as 1 0.7 0.4")
    what.add_argument("--walk", type=int, metavar="FRAMES", help="an animation: so many frames to the next picture")
    parser.add_argument(
        "--amount",
        nargs="+",
        type=float,
        metavar="A",
        help="along the direction, in standard deviations of w (default -3 to 3); 0: as it is",
    )
    parser.add_argument("--layers", metavar="A-B", help="move these layers alone (default: those of the direction)")
    parser.add_argument("--animate", action="store_true", help="a direction: a frame, not a column, for each amount")
    parser.add_argument("--from", dest="latents", type=Path, metavar="FILE", help="a latent of `gesso project`")
    parser.add_argument("--num", type=int, metavar="N", help="how many pictures (default 8)")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="seed of the samples (default 0)")
    parser.add_argument("--label", type=int, metavar="C", help="only this class (conditional models)")
    parser.add_argument("--truncation", type=float, metavar="PSI", help="of the samples, as with `gesso generate`")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: edited-SEED.png; an animation: .webp")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from gesso.cli import sampling
    from launch.inference.loading import load_family
    from launch.inference.pictures import check_ending, check_free
    from launch.training.hardware import best_device

    moving = arguments.animate or arguments.walk is not None
    out = check_ending(arguments.out or Path(f"edited-{arguments.seed}{'.webp' if moving else '.png'}"))
    if moving and out.suffix.lower() not in (".png", ".webp", ".gif"):
        raise ValueError(f"{out}: an animation is a .webp, .gif or .png")
    check_free(out)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=best_device(arguments.device))
    module.require("w_space")
    if arguments.truncation is not None:
        module.sample_with({"truncation_psi": arguments.truncation})
    _write(module, arguments, out)
    print(f"{out}  ({sampling.described(origin)})")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises a ValueError where options do not fit each other."""
    for option in ("num", "batch_size", "walk"):
        if (value := getattr(arguments, option)) is not None and value < 1:
            raise ValueError(f"--{option.replace('_', '-')} {value}: must be 1 or more")
    for option in ("amount", "layers", "animate"):
        if getattr(arguments, option) and not arguments.direction:
            raise ValueError(f"--{option} is of a direction: name its file with --direction")
    if arguments.latents:
        if arguments.mix or arguments.truncations or arguments.walk:
            raise ValueError("--from is for --direction: the others need several pictures, or samples")
        for option in ("num", "label", "truncation"):
            if getattr(arguments, option) is not None:
                raise ValueError(f"--{option} is of samples: leave it out with --from")
    if arguments.truncations and arguments.truncation is not None:
        raise ValueError("--truncation and --truncations: choose one")


def _write(module: ImageFamily, arguments: argparse.Namespace, out: Path) -> None:
    """Makes the pictures and writes them."""
    import torch

    from launch.inference.pictures import image_grid, save_frames, save_picture
    from launch.inference.w_editing import mixed, path
    from launch.inference.w_files import parse_layers

    space = module.w_space()
    if arguments.direction:
        pictures = _along(module, arguments)  # [rows, columns, C, H, W]
        if arguments.animate:
            frames = [image_grid(pictures[:, column]) for column in range(pictures.shape[1])]
            save_frames(frames + frames[-2:0:-1], out, [PACE] * max(1, 2 * len(frames) - 2))
        else:
            # A single column is laid out as the grid of `gesso generate` is.
            columns = pictures.shape[1] if pictures.shape[1] > 1 else None
            save_picture(image_grid(pictures.flatten(0, 1), columns), out)
    elif arguments.mix:
        layers, half = parse_layers(arguments.mix, space), max(1, (arguments.num or 8) // 2)
        save_picture(image_grid(mixed(_sources(module, arguments, 2 * half), layers), half + 1), out)
    elif arguments.truncations:
        rows = []
        for psi in arguments.truncations:
            module.sample_with({"truncation_psi": psi})
            rows.append(_sources(module, arguments).pictures(lambda ws: ws))
        save_picture(image_grid(torch.cat(rows), len(rows[0])), out)
    else:
        frames = [image_grid(one[None]) for one in path(_sources(module, arguments), arguments.walk)]
        save_frames(frames, out, [PACE] * len(frames))


def _along(module: ImageFamily, arguments: argparse.Namespace) -> Tensor:
    """Pictures along a direction: [pictures, amounts, C, H, W]."""
    from launch.inference.w_editing import strip
    from launch.inference.w_files import named_direction, parse_layers

    space = module.w_space()
    directions, number = named_direction(arguments.direction, space)
    layers = parse_layers(arguments.layers, space) if arguments.layers else None
    return strip(_sources(module, arguments), directions, number, arguments.amount or AMOUNTS, layers)


def _sources(module: ImageFamily, arguments: argparse.Namespace, count: int | None = None) -> Sources:
    from gesso.cli import sampling
    from launch.inference.w_editing import Sources
    from launch.inference.w_files import load_latents

    space = module.w_space()
    return Sources(
        space,
        count or arguments.num or 8,
        seed=arguments.seed,
        label=sampling.label(module, arguments.label),
        projected=load_latents(arguments.latents, space) if arguments.latents else None,
        batch_size=arguments.batch_size,
    )
