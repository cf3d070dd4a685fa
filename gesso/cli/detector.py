"""`gesso detector`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gesso.cli import sampling
from gesso.common.arguments import seed

if TYPE_CHECKING:
    from lightning_modules.core.family import ImageFamily


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "detector",
        help="train a detector of a run's samples, and say how well it tells them from real pictures",
        description="Trains a small network to tell samples from training pictures; tests it on other samples and "
        "held-out pictures, as they are and through JPEG, blur and another size, on another seed's samples and on "
        "other runs'. Prints JSON, and writes it with the detector and a sheet of the hardest cases.",
    )
    parser.add_argument("source", metavar="RUN", help="a run that generates")
    parser.add_argument(
        "--num", type=int, default=10_000, metavar="N", help="samples, and real pictures, to train with (%(default)s)"
    )
    parser.add_argument(
        "--test", type=int, default=2000, metavar="N", help="samples, and held-out pictures, to test with (%(default)s)"
    )
    parser.add_argument("--kimg", type=float, default=40.0, help="length of the training (default %(default)s)")
    parser.add_argument("--width", type=int, default=32, metavar="W", help="of the network (default %(default)s)")
    parser.add_argument("--npr", action="store_true", help="look at relations of neighbouring pixels alone")
    parser.add_argument("--plain", action="store_true", help="train without JPEG, blur and other sizes")
    parser.add_argument("--unseen", nargs="+", default=[], metavar="RUN", help="other runs to try it on")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of samples and training (default 0)")
    parser.add_argument(
        "--data", metavar="SHARDS", help="the training set, where it has moved (default: the run's own)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the detector's folder (default: detector in the run's)"
    )
    parser.add_argument(
        "--apply", nargs="+", type=Path, metavar="PICTURE", help="pictures or folders to look at with a trained one"
    )
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    sampling.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from launch.evaluation.detection import LEAST

    for option, least in (("num", LEAST), ("test", LEAST), ("width", 1)):
        if (number := getattr(arguments, option)) < least:
            raise ValueError(f"--{option} must be {least} or more, not {number}")
    if not 0.064 <= arguments.kimg < float("inf"):
        raise ValueError(f"--kimg must be 0.064 or more, not {arguments.kimg:g}")
    return _apply(arguments) if arguments.apply else _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    from launch.evaluation.detection import DetectorOptions, detection, maker
    from launch.evaluation.detector_files import SHEET, check_folder, save_detection
    from launch.evaluation.sources import data_of
    from launch.inference.loading import load_family
    from launch.training.hardware import best_device

    device = best_device(arguments.device)

    def loaded(source: str) -> tuple[ImageFamily, dict[str, Any]]:
        module, origin = load_family(source, average=not arguments.raw, device=device)
        module.require("generate")
        return module, origin

    def shown(steps: Iterable[int], count: int) -> Iterable[int]:
        return track(steps, "training", count, console=Console(stderr=True), transient=True)

    folder = check_folder(_folder(arguments))
    module, origin = loaded(arguments.source)
    if changes := sampling.changes(arguments):
        module.sample_with(changes)
    data = data_of(Path(origin["path"]), module, {"path": arguments.data}).pictures
    options = DetectorOptions(
        training=arguments.num,
        test=arguments.test,
        kimg=arguments.kimg,
        npr=arguments.npr,
        attacks=not arguments.plain,
        seed=arguments.seed,
        width=arguments.width,
    )
    unseen = {other: maker(loaded(other)[0]) for other in arguments.unseen}
    found = detection(maker(module), data, options, unseen=unseen, device=device, progress=shown)
    about = {"run": str(origin["path"]), "images_seen": origin["images_seen"], "average": origin["average"]}
    save_detection(found, about, folder)
    print(json.dumps({**found.result(), **about}, indent=2))
    for name, each in found.accuracy.items():
        line = f"{each.share:.1%} right ({each.low:.1%} to {each.high:.1%})"
        print(f"gesso: {name}: {line}, {each.made_found:.1%} of the made ones found", file=sys.stderr)
    print(f"gesso: {folder / SHEET}: samples taken for real ones, and real ones for samples", file=sys.stderr)
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    """Prints the probability of each picture; 1 where one could not be read."""
    from launch.evaluation.detector_files import Detector
    from launch.inference.folders import pictures_in
    from launch.training.hardware import best_device

    if arguments.unseen:
        raise ValueError("--unseen is for the training of a detector: leave it or --apply out")
    detector = Detector(_folder(arguments), best_device(arguments.device))
    files = [file for given in arguments.apply for file in (pictures_in(given) if given.is_dir() else [given])]
    failed = 0
    for file in files:
        try:
            made = float(detector.made(detector.read(file)))
        except (ValueError, FileNotFoundError) as error:
            print(f"gesso: {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"{'made' if made > 0.5 else 'real'}  {made:.3f}  {file}")
    return 1 if failed else 0


def _folder(arguments: argparse.Namespace) -> Path:
    """Where the detector is: ``--out``, in the run's folder, or beside an exported file."""
    from launch.checkpoints.export import SUFFIX
    from launch.runs.folder import find_checkpoint

    if arguments.out is not None:
        return Path(arguments.out)
    source = Path(arguments.source)
    if source.suffix == SUFFIX:
        return source.with_name(f"{source.stem}-detector")
    return find_checkpoint(source).parent.parent / "detector"
