"""`gesso memorised`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gesso.common.arguments import seed
from lightning_modules.metrics import specs

if TYPE_CHECKING:
    from torch import Tensor


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "memorised",
        help="whether a run's samples are copies of its training pictures",
        description="Compares how near samples and held-out pictures are to the training pictures, in pixels and in "
        "features. Prints JSON; flagged is true where more samples are near than can be told by chance.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run that generates")
    parser.add_argument("--num", type=int, default=500, metavar="N", help="samples (default %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the samples (default 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="training pictures to look through (default: all)")
    parser.add_argument(
        "--data", metavar="SHARDS", help="the training set, where it has moved (default: the run's own)"
    )
    parser.add_argument(
        "--extractor", default="mobilenet_v2", choices=specs.EXTRACTORS, help="of the features (default %(default)s)"
    )
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="the nearest samples, each above its training picture"
    )
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    for option, least in (("num", 50), ("limit", 100)):
        if (number := getattr(arguments, option)) is not None and number < least:
            raise ValueError(f"--{option} must be {least} or more, not {number}")
    import torch
    from rich.console import Console
    from rich.progress import track

    from launch.evaluation.memorisation import COLUMNS, memorisation
    from launch.evaluation.pictures import features_by, samples_of
    from launch.evaluation.sources import data_of
    from launch.inference.loading import load_family
    from launch.inference.pictures import check_ending, check_free, image_grid, save_picture
    from launch.training.hardware import best_device

    if arguments.sheet:
        check_free(check_ending(arguments.sheet))
    device = best_device(arguments.device)
    module, origin = load_family(arguments.run_folder, average=not arguments.raw, device=device)
    module.require("generate")
    data = data_of(Path(origin["path"]), module, {"path": arguments.data}).pictures
    features = features_by(arguments.extractor, device)

    def shown(batches: Iterable[Tensor], steps: int) -> Iterable[Tensor]:
        return track(batches, "training pictures", steps, console=Console(stderr=True), transient=True)

    samples = samples_of(module, torch.arange(arguments.num), seed=arguments.seed)
    found = memorisation(samples, data, features, name=arguments.extractor, limit=arguments.limit, progress=shown)
    if arguments.sheet:
        print(save_picture(image_grid(found.sheet, COLUMNS), arguments.sheet), file=sys.stderr)
    about = {"run": str(origin["path"]), "images_seen": origin["images_seen"], "seed": arguments.seed}
    print(json.dumps({**found.result(), **about}, indent=2))
    for name, space in found.spaces.items():
        line = f"{space.near:.1%} of samples ({space.low:.1%} to {space.high:.1%}) are nearer to a training picture"
        print(f"gesso: {name}: {line} than 99 % of held-out ones", file=sys.stderr)
    print(f"gesso: {'copies: look at --sheet' if found.flagged else 'no sign of copies'}", file=sys.stderr)
    return 0
