"""`gesso evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

from lightning_modules.metrics import specs


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="FID and the others of a run or a shard set's split; of a style run, what it keeps and what it takes",
        description="Scores generated images (or, given a shard set, its --split) against a split of real images: fid, "
        "kid, is, prdc. A run that stylises is scored on held-out photographs: lpips, ssim and content_cosine say how "
        "much of the content is left, gram_distance and statistics_distance how far the style is, artfid both in one.",
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT_OR_SHARDS")
    parser.add_argument("--data", metavar="SHARDS", help="shard set to compare with (default: the run's own)")
    parser.add_argument("--style-data", metavar="SHARDS", help="shard set of the styles (default: the run's own)")
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
        "--num-samples", type=int, metavar="N", help="default 50,000, or the whole split; for styles 100"
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="of a style run: how far it flickers in this video")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="of a style run: contents x styles, to look at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(run=run)


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
        what = [arguments.extractor, *sorted(arguments.metrics), result["samples"], f"seed{arguments.seed}"]
        what += ["raw"] if arguments.raw else []
        file = run / "evaluations" / f"{'-'.join([at_images(result['images_seen']), *map(str, what)])}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result, indent=1))
    return 0


def _of_run(arguments: argparse.Namespace) -> dict[str, Any]:
    from launch.inference.loading import load_family
    from lightning_modules.kinds.stylizing import StyleFamily

    device = _device(arguments)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=device)
    if isinstance(module, StyleFamily):
        return _stylized(arguments, module, origin)
    return _generated(arguments, module, origin, device)


def _choose(arguments: argparse.Namespace, kind: specs.Kind, what: str) -> None:
    chosen = specs.choose(kind, arguments.metrics, "evaluate", what=what, option="--metrics")
    arguments.metrics = [spec.name for spec in chosen]


def _generated(arguments: argparse.Namespace, module: Any, origin: dict[str, Any], device: Any) -> dict[str, Any]:
    from launch.evaluation import samples as evaluation
    from lightning_modules.kinds.generative import generator

    _choose(arguments, "generation", f"a {type(module).__name__}")
    number = arguments.num_samples or 50_000
    data = _data(arguments, arguments.data or _data_of(Path(origin["path"]))["path"], module.hparams)
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


def _stylized(arguments: argparse.Namespace, module: Any, origin: dict[str, Any]) -> dict[str, Any]:
    from datamodules.paired import ContentStyleData
    from datamodules.shards import ShardData
    from launch.evaluation import styles as style_evaluation
    from launch.inference.pictures import image_grid, save_png
    from launch.training.provisions import provide_styles

    _choose(arguments, "stylization", f"a {type(module).__name__}")
    number = arguments.num_samples or 100
    given = {"path": arguments.data, "style_path": arguments.style_data}
    own = {} if all(given.values()) else _data_of(Path(origin["path"]))
    paths = {name: given[name] or own[name] for name in given if given[name] or name in own}
    kind = ContentStyleData if "style_path" in paths else ShardData
    data = kind(**paths, size=module.hparams.get("resolution"), channels=3)
    provide_styles(module)
    metrics = style_evaluation.build_metrics(module, arguments.metrics, arguments.extractor)
    with _bar(number) as advance:
        scores = style_evaluation.score(module, metrics, data, num_samples=number, progress=advance)
    if arguments.video:
        scores |= style_evaluation.temporal_consistency(module, data, arguments.video)
    if arguments.sheet:
        preview = style_evaluation.contact_sheet(module, data)
        print(save_png(image_grid(*preview), arguments.sheet), file=sys.stderr)
    names = [data.manifest.name, *([data.style.manifest.name] if isinstance(data, ContentStyleData) else [])]
    return {**scores, **origin, "samples": number, "extractor": arguments.extractor, "data": names, "size": data.size}


def _real(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    _choose(arguments, "generation", "images")
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
    from launch.evaluation import samples as evaluation
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


def _data_of(checkpoint: Path) -> dict[str, Any]:
    """Options of the data that the checkpoint's run was trained on."""
    import yaml

    config = checkpoint.parent.parent / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{checkpoint}: its run's config.yaml is not beside it; name the shard set with --data")
    return yaml.safe_load(config.read_text())["data"]["init_args"]


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
    from launch.training.hardware import best_device

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
