"""`gesso evaluate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="FID, KID, IS, precision and recall of a run, or of a shard set's split",
        description="Scores generated images (or, given a shard set, its --split) against a split of real images.",
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT_OR_SHARDS")
    parser.add_argument("--data", metavar="SHARDS", help="shard set to compare with (default: the run's own)")
    parser.add_argument("--reference", default="train", metavar="SPLIT", help="its split (default train)")
    parser.add_argument("--reference-samples", type=int, metavar="N", help="only so many of its images (default all)")
    parser.add_argument("--split", default="test", help="split of a shard set given as source (default test)")
    parser.add_argument(
        "--metrics", nargs="+", default=["fid", "kid", "prdc"], choices=["fid", "kid", "is", "prdc"], metavar="METRIC"
    )
    parser.add_argument(
        "--extractor",
        default="inception-tf",
        choices=["inception-tf", "inception-clean", "mobilenet_v2"],
        help="inception-tf is comparable with papers; mobilenet_v2 is light enough for a CPU",
    )
    parser.add_argument("--num-samples", type=int, metavar="N", help="default 50,000, or the whole split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.num_samples is not None and arguments.num_samples < 2:
        raise ValueError("--num-samples must be 2 or more")
    from datamodules.manifest import MANIFEST_NAME

    source = Path(arguments.source)
    real = (source / MANIFEST_NAME).is_file() or source.name == MANIFEST_NAME
    result = _real(arguments) if real else _generated(arguments)
    print(json.dumps(result, indent=1))
    run = Path(result["path"]).parent.parent
    if not real and (run / "run.json").is_file():
        what = [arguments.extractor, *sorted(arguments.metrics), result["samples"], f"seed{arguments.seed}"]
        what += ["raw"] if arguments.raw else []
        file = run / "evaluations" / f"{result['images_seen']:012d}-{'-'.join(map(str, what))}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result, indent=1))
    return 0


def _generated(arguments: argparse.Namespace) -> dict[str, Any]:
    from launch import evaluation
    from launch.loading import load_family
    from lightning_modules.generative import generator

    number = arguments.num_samples or 50_000
    device = _device(arguments)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=device)
    data = _data(arguments, arguments.data or _data_of(Path(origin["path"])), module.hparams)
    metrics = _metrics(arguments, data, number, device)
    with _bar(number) as advance:
        scores = evaluation.score(
            generator(module),
            metrics,
            num_samples=number,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            progress=advance,
        )
    return {**scores, **origin, **_beside(arguments, data, number)}


def _real(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    data = _data(arguments, arguments.data or arguments.source, {})
    source = _data(arguments, arguments.source, {"resolution": data.size, "channels": data.channels})
    number = min(arguments.num_samples or 10**12, source.manifest.split(arguments.split).samples)
    device = _device(arguments)
    metrics = _metrics(arguments, data, number, device)
    first = 0
    with _bar(number) as advance:
        for batch in source.reference_batches(
            arguments.split, rank=0, world_size=1, batch_size=arguments.batch_size, limit=number
        ):
            metrics.update(batch.to(device), torch.arange(first, first + len(batch), device=device))
            first += len(batch)
            advance(len(batch))
    return {
        **metrics.compute(),
        "path": arguments.source,
        "split": arguments.split,
        **_beside(arguments, data, number),
    }


def _metrics(arguments: argparse.Namespace, data: Any, number: int, device: Any) -> Any:
    from launch import evaluation
    from lightning_modules.metrics.generation import GenerationMetrics

    network = evaluation.extractor(arguments.extractor, device)
    statistics = evaluation.reference(
        data, arguments.reference, network, limit=arguments.reference_samples, progress=True
    )
    return GenerationMetrics(network, statistics, arguments.metrics, num_samples=number).to(device)


def _data(arguments: argparse.Namespace, path: str, hparams: Any) -> Any:
    from datamodules.shards import ShardData

    return ShardData(
        path,
        global_batch_size=arguments.batch_size,
        size=hparams.get("resolution"),
        channels=hparams.get("channels"),
    )


def _data_of(checkpoint: Path) -> str:
    """The shard set that the checkpoint's run was trained on."""
    import yaml

    config = checkpoint.parent.parent / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{checkpoint}: its run's config.yaml is not beside it; name the shard set with --data")
    return yaml.safe_load(config.read_text())["data"]["init_args"]["path"]


def _beside(arguments: argparse.Namespace, data: Any, number: int) -> dict[str, Any]:
    """What makes a number comparable: stands beside it wherever it goes."""
    return {
        "samples": number,
        "extractor": arguments.extractor,
        "reference": {
            "name": data.manifest.name,
            "split": arguments.reference,
            "images": arguments.reference_samples or data.manifest.split(arguments.reference).samples,
            "size": data.size,
        },
    }


def _device(arguments: argparse.Namespace) -> Any:
    from launch.hardware import best_device

    return best_device(arguments.device)


def _bar(total: int) -> Any:
    import contextlib

    from rich.console import Console
    from rich.progress import Progress

    @contextlib.contextmanager
    def bar():  # type: ignore[no-untyped-def]
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("evaluate", total=total)
            yield lambda images: progress.advance(task, images)

    return bar()
