"""`gesso evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lightning_modules.metrics import specs

if TYPE_CHECKING:
    import torch

    from datamodules.shards import ShardData
    from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="FID and the others of a run or a shard set's split; of a style run, what it keeps and what it takes",
        description="Scores generated images (or, given a shard set, its --split) against a split of real images: fid, "
        "kid, is, prdc. A run that stylises is scored on held-out photographs: lpips, ssim and content_cosine say how "
        "much of the content is left, gram_distance and statistics_distance how far the style is, artfid both in one. "
        "A run that translates is scored on held-out pictures, "
        "too, against the other domain.",
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT_OR_SHARDS")
    parser.add_argument("--data", metavar="SHARDS", help="shard set to compare with (default: the run's own)")
    parser.add_argument(
        "--style-data",
        "--data-b",
        dest="second_data",
        metavar="SHARDS",
        help="shard set of the styles, or of domain B (default: the run's own)",
    )
    parser.add_argument("--direction", metavar="A-TO-B", help="of a translating run: which way (default: its first)")
    parser.add_argument("--reference", default="train", metavar="SPLIT", help="its split (default train)")
    parser.add_argument("--reference-samples", type=int, metavar="N", help="only so many of its images (default all)")
    parser.add_argument("--split", default="test", help="split of a shard set given as source (default test)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=list(specs.table()),
        metavar="METRIC",
        help="; ".join(f"of {kind}: {_listed(kind)}" for kind in get_args(specs.Kind)) + " (* by default)",
    )
    parser.add_argument(
        "--extractor",
        default="inception-tf",
        choices=specs.EXTRACTORS,
        help="inception-tf is comparable with papers; mobilenet_v2 is light enough for a CPU",
    )
    parser.add_argument(
        "--num-samples", type=int, metavar="N", help="default 50,000, or all pictures there are; for styles 100"
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="of a style run: how far it flickers in this video")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="held-out pictures and what the run makes of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(run=run)


def _measured(result: dict[str, Any]) -> set[str]:
    """The metrics, as they are asked for, whose numbers a result holds."""
    return {known[0].name for name in result if (known := specs.quantity(name))}


def _listed(kind: specs.Kind) -> str:
    return ", ".join(spec.name + "*" * ("evaluate" in spec.default) for spec in specs.of_kind(kind))


def run(arguments: argparse.Namespace) -> int:
    if arguments.num_samples is not None and arguments.num_samples < 2:
        raise ValueError("--num-samples must be 2 or more")
    from datamodules.manifest import MANIFEST_NAME
    from launch.runs.folder import at_images

    source = Path(arguments.source)
    real = (source / MANIFEST_NAME).is_file() or source.name == MANIFEST_NAME
    result = _real(arguments) if real else _of_run(arguments)
    print(json.dumps(result, indent=1))
    run = Path(result["path"]).parent.parent
    if not real and (run / "run.json").is_file():
        named = sorted(name for name in arguments.metrics or _measured(result))
        what = [arguments.extractor, *named, result["samples"], f"seed{arguments.seed}"]
        what += ["raw"] if arguments.raw else []
        file = run / "evaluations" / f"{'-'.join([at_images(result['images_seen']), *map(str, what)])}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result, indent=1))
    return 0


def _of_run(arguments: argparse.Namespace) -> dict[str, Any]:
    from launch.evaluation.front import default_samples
    from launch.evaluation.references import held_out
    from launch.evaluation.sources import data_of
    from launch.evaluation.temporal import temporal_consistency
    from launch.inference.loading import load_family
    from launch.inference.pictures import image_grid, save_png
    from launch.training.provisions import provide_pictures

    device = _device(arguments)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=device)
    if arguments.sheet:
        module.require("sheet")
    if arguments.video:
        module.require("stylize")
    options = _options(arguments, default_samples(module))
    evaluator = module.evaluator(options)
    if evaluator is None:
        raise ValueError(f"{arguments.source}: nothing can be measured of {module.described()}")
    given = {"path": arguments.data, "second": arguments.second_data}
    data = data_of(Path(origin["path"]), module, given)
    provide_pictures(module)
    scores = _score(evaluator, data, device)
    if arguments.video:
        family: Any = module
        _, style = family.styles_of(held_out(data, 1, device))[0]
        scores |= temporal_consistency(family, style, device, arguments.video)
    if arguments.sheet:
        preview = module.sheet(held_out(data, 8, device))
        print(save_png(image_grid(*preview), arguments.sheet), file=sys.stderr)
    return {**scores, **origin, **_beside(arguments, evaluator, data)}


def _real(arguments: argparse.Namespace) -> dict[str, Any]:
    from datamodules.shards import ShardData
    from launch.evaluation import driver
    from lightning_modules.metrics.evaluator import GenerationEvaluator, Pictures

    data = ShardData(arguments.data or arguments.source)
    source = ShardData(arguments.source, size=data.size, channels=data.channels)
    device = _device(arguments)
    number = min(arguments.num_samples or 10**12, source.manifest.split(arguments.split).samples)
    pictures = Pictures("image", arguments.split)
    options = replace(_options(arguments, number), num_samples=number)
    evaluator = GenerationEvaluator(lambda index, batch: (batch or {})["image"], options, "images", pictures)
    driver.prepare(evaluator, data, device, progress=True)
    scores = _score(evaluator, source, device, prepared=True)
    return {**scores, "path": arguments.source, "split": arguments.split, **_beside(arguments, evaluator, data)}


def _options(arguments: argparse.Namespace, number: int) -> EvaluationOptions:
    from lightning_modules.metrics.evaluator import EvaluationOptions

    return EvaluationOptions(
        metrics=tuple(arguments.metrics) if arguments.metrics else None,
        extractor=arguments.extractor,
        num_samples=arguments.num_samples or number,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        reference_split=arguments.reference,
        reference_samples=arguments.reference_samples,
        direction=arguments.direction,
        occasion="evaluate",
        option="--metrics",
    )


def _score(evaluator: Evaluator, data: ShardData, device: torch.device, *, prepared: bool = False) -> dict[str, float]:
    from launch.evaluation import driver

    if not prepared:
        driver.prepare(evaluator, data, device, progress=True)
    # How many there will be is certain only when it has begun.
    with _bar(lambda: evaluator.num_samples) as advance:
        return driver.score(evaluator, data, device, progress=advance)


def _beside(arguments: argparse.Namespace, evaluator: Evaluator, data: ShardData) -> dict[str, Any]:
    """The facts that make a number comparable, which are printed and saved with it."""
    from launch.evaluation.driver import stream_of

    beside: dict[str, Any] = {"samples": evaluator.num_samples, "extractor": arguments.extractor}
    for pictures in evaluator.references:
        stream = stream_of(data, pictures)
        split = pictures.split or stream.held_out_split
        beside["reference"] = {
            "name": stream.manifest.name,
            "split": split,
            "images": pictures.limit or stream.manifest.split(split).samples,
            "size": stream.size,
        }
    if evaluator.source is not None:
        beside |= {"data": [stream.manifest.name for stream in data.streams().values()], "size": data.size}
    return beside


def _device(arguments: argparse.Namespace) -> Any:
    from launch.training.hardware import best_device

    return best_device(arguments.device)


def _bar(total: Callable[[], int]) -> Any:
    import contextlib

    from rich.console import Console
    from rich.progress import Progress

    @contextlib.contextmanager
    def bar():  # type: ignore[no-untyped-def]
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("evaluate", total=total())
            yield lambda images: progress.update(task, advance=images, total=total())

    return bar()
