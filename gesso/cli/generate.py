"""`gesso generate`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gesso.cli import publishing, sampling
from gesso.common.arguments import seed

if TYPE_CHECKING:
    from torch import Tensor

    from launch.provenance.publication import Publication
    from lightning_modules.core.family import ImageFamily


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("generate", help="make images with a trained run")
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT")
    parser.add_argument("--num", type=int, metavar="N", help="how many images (default 64; with --from 8)")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="seed of the samples (default 0)")
    parser.add_argument("--label", type=int, metavar="C", help="only this class (conditional models)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--grid", metavar="FILE", help="one picture of all (default: samples-SEED.png)")
    where.add_argument("--folder", metavar="DIR", help="one PNG an image, named by its number")
    where.add_argument("--interpolate", metavar="FILE", help="rows of N images between random latents")
    sampling.add_options(parser)
    group = parser.add_argument_group("from a picture")
    group.add_argument("--from", dest="picture", type=Path, metavar="PICTURE", help="new versions of this picture")
    group.add_argument("--strength", type=float, metavar="S", help="how much is made anew, 0 to 1 (default 0.5)")
    group.add_argument("--mask", type=Path, metavar="FILE", help="only what is white here is made anew: fills in")
    group.add_argument("--resamples", type=int, metavar="R", help="go down so often, for a better fit to what is kept")
    publishing.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check_editing(arguments)
    if arguments.num is None:
        arguments.num = 8 if arguments.picture else 64
    if arguments.num < 1 or arguments.batch_size < 1:
        raise ValueError("--num and --batch-size must be 1 or more")
    for option in ("grid", "folder", "interpolate"):
        if getattr(arguments, option) == "":
            raise ValueError(f"--{option} is empty: name a {'folder' if option == 'folder' else 'file'}")
    import torch
    from rich.progress import track

    from gesso.common.pixels import to_uint8
    from launch.inference.loading import load_family
    from launch.inference.pictures import check_ending, check_free, image_grid, save_picture
    from launch.training.hardware import best_device

    grid = check_ending(Path(arguments.interpolate or arguments.grid or f"samples-{arguments.seed}.png"))
    folder = Path(arguments.folder) if arguments.folder else None
    # What would be replaced is known before anything is made.
    targets = [grid] if folder is None else [_numbered(folder, number) for number in range(arguments.num)]
    for target in targets:
        check_free(target)
    if folder is not None:
        _check_no_others(folder, arguments.num)
    finish = publishing.asked(arguments, targets)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=best_device(arguments.device))
    if changes := sampling.changes(arguments):
        module.sample_with(changes)
    if finish is not None:
        finish = _stated(finish, module, origin, arguments)
    if arguments.interpolate:
        module.require("interpolate")
        with torch.no_grad():
            path = module.interpolate(pairs=8, steps=arguments.num, seed=arguments.seed)
        return _wrote(save_picture(image_grid(path.images, path.columns), grid, finish=finish), origin)
    module.require("generate")
    make = _maker(module, arguments)
    made = []
    batches = torch.arange(arguments.num).split(arguments.batch_size)
    for index in track(batches, "generate", transient=True):
        with torch.no_grad():
            images = make(index)
        if folder is None:
            made.append(images.cpu())
            continue
        for number, image in zip(index.tolist(), to_uint8(images).permute(0, 2, 3, 1).cpu().numpy(), strict=True):
            save_picture(image, _numbered(folder, number), finish=finish)
    if folder is not None:
        return _wrote(folder, origin)
    return _wrote(save_picture(image_grid(torch.cat(made)), grid, finish=finish), origin)


def _stated(
    finish: Publication, module: ImageFamily, origin: dict[str, Any], arguments: argparse.Namespace
) -> Publication:
    """``finish`` with what is known of the pictures' making."""
    from launch.provenance import facts_of

    sampled = module.sampled()
    if arguments.mask:
        # Ancestral sampling fills in, whatever the recipe's sampler is.
        sampled = {name: value for name, value in sampled.items() if name not in ("sampler", "evaluations")}
    facts = facts_of(
        origin,
        type(module).__name__,
        seed=arguments.seed,
        label=arguments.label,
        sampling=sampled or None,
        strength=arguments.strength,
    )
    stated = finish.with_facts(facts)
    return stated.of(arguments.picture) if arguments.picture else stated


def _check_editing(arguments: argparse.Namespace) -> None:
    given = [name for name in ("strength", "mask", "resamples") if getattr(arguments, name) is not None]
    if given and arguments.picture is None:
        raise ValueError(f"--{given[0]} is of a picture: name it with --from")
    if arguments.mask is not None and arguments.strength is not None:
        raise ValueError("--mask keeps what is black in it, and makes all else anew: leave --strength out")
    if arguments.mask is not None and arguments.sampler is not None:
        raise ValueError("--mask fills in by ancestral sampling alone: leave --sampler out")
    if arguments.resamples is not None and arguments.mask is None:
        raise ValueError("--resamples is for filling in: name the --mask")
    if arguments.picture is not None and arguments.interpolate:
        raise ValueError("--from and --interpolate: choose one")
    if arguments.label is not None and arguments.interpolate:
        raise ValueError("--label and --interpolate: choose one; each row of a path is of the next class")


def _maker(module: ImageFamily, arguments: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """Maps numbers of images [N] to the images."""
    label = sampling.label(module, arguments.label)

    def labels(index: Tensor) -> Tensor | None:
        return None if label is None else label.expand(len(index))

    if arguments.picture is None:
        return lambda index: module.generate(index, seed=arguments.seed, labels=labels(index))
    from launch.inference.editing import edit, read_mask, read_to_edit

    module.require("edit")
    picture = read_to_edit(module, arguments.picture)
    known = read_mask(arguments.mask, picture, arguments.picture) if arguments.mask else None
    strength = 0.5 if arguments.strength is None else arguments.strength
    resamples = 1 if arguments.resamples is None else arguments.resamples
    return lambda index: edit(
        module,
        picture,
        index,
        seed=arguments.seed,
        strength=strength,
        known=known,
        labels=labels(index),
        resamples=resamples,
    )


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.png"


def _check_no_others(folder: Path, count: int) -> None:
    """Raises a ValueError where more numbered pictures of before would stay beside the new ones."""
    numbers = (int(file.stem) for file in folder.glob("[0-9]*.png") if file.stem.isdecimal())
    if others := sorted(number for number in numbers if number >= count):
        raise ValueError(
            f"{folder}: holds {len(others):,} numbered pictures of before that {count:,} new ones would not replace, "
            f"such as {_numbered(folder, others[0]).name}: name a new folder, or remove them"
        )


def _wrote(path: Path, origin: dict) -> int:
    print(f"{path}  ({sampling.described(origin)})")
    return 0
