"""`gesso bias`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gesso.cli import sampling
from gesso.common.arguments import seed
from lightning_modules.metrics import specs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from datamodules.shards import ShardData
    from launch.evaluation.bias import Group
    from lightning_modules.core.family import ImageFamily


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "bias",
        help="which classes or attributes a run makes more often, or less, than its data has them",
        description="Compares the shares of classes, told by a classifier that is trained on the data's labels, and of "
        "attributes, told by scorers, in samples and in held-out pictures; with FID and recall of each class where the "
        "run is conditional. Prints JSON.",
    )
    parser.add_argument("source", metavar="RUN", help="a run that generates")
    parser.add_argument(
        "--num", type=int, default=2000, metavar="N", help="samples, and held-out pictures (default %(default)s)"
    )
    parser.add_argument(
        "--scorer",
        nargs="+",
        default=[],
        metavar="NAME",
        help="brightness, hue, warmth, stroke-width, slant, or an installed package's (entry points gesso.scorers)",
    )
    parser.add_argument(
        "--training",
        type=int,
        default=20_000,
        metavar="N",
        help="training pictures for the classifier, and to cut scores by (default %(default)s)",
    )
    parser.add_argument(
        "--kimg", type=float, default=40.0, help="length of the classifier's training (default %(default)s)"
    )
    parser.add_argument(
        "--per-class", type=int, default=200, metavar="N", help="pictures for FID and recall; 0: none (%(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of samples and training (default 0)")
    parser.add_argument(
        "--data", metavar="SHARDS", help="the training set, where it has moved (default: the run's own)"
    )
    parser.add_argument(
        "--extractor", default="mobilenet_v2", choices=specs.EXTRACTORS, help="of FID and recall (default %(default)s)"
    )
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    sampling.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    for option, least in (("num", 50), ("training", 50), ("per_class", 0)):
        if (number := getattr(arguments, option)) < least:
            raise ValueError(f"--{option.replace('_', '-')} must be {least} or more, not {number}")
    if not 0.064 <= arguments.kimg < float("inf"):
        raise ValueError(f"--kimg must be 0.064 or more, not {arguments.kimg:g}")
    import torch

    from launch.evaluation.memorisation import compared_split
    from launch.evaluation.pictures import samples_of
    from launch.evaluation.sources import data_of
    from launch.inference.loading import load_family
    from launch.training.hardware import best_device
    from lightning_modules.pictures.scores import scorer

    scorers = {name: scorer(name) for name in dict.fromkeys(arguments.scorer)}
    device = best_device(arguments.device)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=device)
    module.require("generate")
    if changes := sampling.changes(arguments):
        module.sample_with(changes)
    data = data_of(Path(origin["path"]), module, {"path": arguments.data}).pictures
    split = compared_split(data)
    if data.num_classes < 2 and not scorers:
        what = "no labels" if not data.num_classes else "one class alone"
        raise ValueError(f"{data.path} has {what} to compare shares of: name scores with --scorer brightness slant ...")
    if min(data.number_of("train"), data.number_of(split)) < 50:
        raise ValueError(f"{data.path}: shares need 50 pictures or more of train and {split}")
    samples = samples_of(module, torch.arange(arguments.num), seed=arguments.seed)
    found = _shares(arguments, module, data, split, samples, scorers, device)
    about = {"run": str(origin["path"]), "images_seen": origin["images_seen"], "seed": arguments.seed}
    print(json.dumps({**found, "samples": len(samples), **about}, indent=2))
    return 0


def _shares(
    arguments: argparse.Namespace,
    module: ImageFamily,
    data: ShardData,
    split: str,
    samples: Tensor,
    scorers: dict[str, Callable[[Tensor], Tensor]],
    device: torch.device,
) -> dict[str, Any]:
    """Everything that is measured, as plain data."""
    from launch.evaluation import bias
    from launch.evaluation.pictures import features_by, labelled_pictures
    from launch.evaluation.shares import Share

    training, labels = labelled_pictures(data, "train", arguments.training)
    held_out, own = labelled_pictures(data, split, arguments.num)
    found: dict[str, Any] = {"held_out": len(held_out)}
    if data.num_classes > 1:
        classes = data.manifest.classes
        network = bias.class_of(
            training,
            labels,
            len(classes),
            kimg=arguments.kimg,
            seed=arguments.seed,
            device=device,
            progress=_shown("classifier"),
        )
        guessed, known = bias.told(network, held_out), own >= 0
        right = int((guessed == own)[known].sum())
        found["classifier"] = vars(Share.of(right, max(1, int(known.sum()))))
        found["classes"] = _told("classes", bias.groups(classes, guessed, bias.told(network, samples)))
        if arguments.per_class and module.batch_spec().num_classes == len(classes):
            found["per_class"] = bias.plain(
                bias.of_classes(
                    module,
                    data,
                    split,
                    network,
                    features_by(arguments.extractor, device),
                    num=arguments.per_class,
                    seed=arguments.seed,
                    progress=_shown("classes"),
                )
            )
    for name, score in scorers.items():
        try:
            found[name] = _told(name, bias.score_groups(score, training, held_out, samples))
        except ValueError as error:
            raise ValueError(f"--scorer {name}: {error}") from error
    return found


def _told(what: str, found: Sequence[Group]) -> list[dict[str, object]]:
    """Groups as plain data; those of another share are told to stderr."""
    from launch.evaluation.bias import plain

    unlike = [group for group in found if group.verdict != "alike"]
    for group in unlike:
        line = f"{group.samples.share:.1%} of samples, {group.data.share:.1%} of held-out pictures"
        print(f"gesso: {what}: {group.name}: {group.verdict} than in the data: {line}", file=sys.stderr)
    if not unlike:
        print(f"gesso: {what}: no share that chance could not explain", file=sys.stderr)
    return plain(found)


def _shown(what: str) -> Callable[[Iterable[int], int], Iterable[int]]:
    from rich.console import Console
    from rich.progress import track

    return lambda steps, count: track(steps, what, count, console=Console(stderr=True), transient=True)
