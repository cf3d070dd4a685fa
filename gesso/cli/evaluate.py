"""`gesso evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from gesso.cli import sampling
from gesso.common.arguments import seed
from gesso.common.text import counted
from lightning_modules.metrics import specs

if TYPE_CHECKING:
    import torch

    from datamodules.shards import ShardData
    from launch.evaluation.sources import Asked
    from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator


#: FID's own number of features; of fewer pictures the covariance is not even invertible.
FEW = 2048
#: Pictures of each of KID's subsets, in papers.
SUBSET = 1000
#: Of what PRDC's settings tell how many exact copies there are.
SIDES = ("real", "generated")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="FID and the others of a run or a shard set's split; of a style run, what it keeps and what it takes",
        description="Scores generated images (or, given a shard set, its --split) against a split of real images: fid, "
        "kid, is, prdc, pr; of a StyleGAN also ppl, of a StyleGAN3 eqt and eqr. "
        "A run that stylises is scored on held-out photographs: lpips, ssim and content_cosine say how "
        "much of the content is left, gram_distance and statistics_distance how far the style is, artfid both in one. "
        "A run that translates is scored on held-out pictures, "
        "too, against the other domain.",
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT_OR_SHARDS")
    parser.add_argument(
        "--against",
        metavar="SET[:SPLIT]",
        help="the real images to compare with: a shard set and its split (default: the run's own, and train); :SPLIT "
        "alone is another split of the run's own",
    )
    parser.add_argument(
        "--data",
        metavar="SHARDS",
        help="shard set whose pictures a run stylises, translates or reconstructs (default: the run's own); else as "
        "--against",
    )
    parser.add_argument(
        "--style-data",
        "--data-b",
        dest="second_data",
        metavar="SHARDS",
        help="shard set of the styles, or of domain B (default: the run's own)",
    )
    parser.add_argument("--direction", metavar="A-TO-B", help="of a translating run: which way (default: its first)")
    parser.add_argument("--reference", metavar="SPLIT", help="the split to compare with; now --against says it")
    parser.add_argument("--reference-samples", type=int, metavar="N", help="only so many of its images (default all)")
    parser.add_argument(
        "--split",
        help="split of a shard set given as source (default test), or of the pictures that a run makes others of "
        "(default: the held-out one)",
    )
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
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="held-out pictures and what the run makes of them")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=64, metavar="B")
    parser.add_argument("--device", default="auto")
    sampling.add_options(parser)
    parser.set_defaults(run=run)


def _measured(result: dict[str, Any]) -> set[str]:
    """The metrics, as they are asked for, whose numbers a result holds."""
    return {known[0].name for name in result if (known := specs.quantity(name))}


def _listed(kind: specs.Kind) -> str:
    return ", ".join(spec.name + "*" * ("evaluate" in spec.default) for spec in specs.of_kind(kind))


def run(arguments: argparse.Namespace) -> int:
    for option in ("num_samples", "reference_samples"):
        if (number := getattr(arguments, option)) is not None and number < 2:
            raise ValueError(f"--{option.replace('_', '-')} must be 2 or more, not {number}")
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be 1 or more, not {arguments.batch_size}")
    from datamodules.manifest import MANIFEST_NAME
    from gesso.common.files import write_whole
    from launch.runs.folder import at_images

    arguments.set, split = _against(arguments)
    arguments.reference_split = split or "train"
    source = Path(arguments.source)
    real = (source / MANIFEST_NAME).is_file() or source.name == MANIFEST_NAME
    result = _real(arguments) if real else _of_run(arguments)
    print(json.dumps(result, indent=1))
    run = Path(result["path"]).parent.parent
    if not real and (run / "run.json").is_file():
        named = sorted(name for name in arguments.metrics or _measured(result))
        what = [arguments.extractor, *named, result["samples"], f"seed{arguments.seed}"]
        what += ["raw"] if arguments.raw else []
        # Weights of a file of its own, such as an average of another width, have the checkpoint's images seen.
        what += [Path(result["path"]).stem] if Path(result["path"]).is_file() else []
        # Figures of another sampler, or of the other direction, stand beside the first, too.
        what += [f"{name}{value}" for name, value in sampling.changes(arguments).items()]
        what += [result["direction"]] if "direction" in result else []
        given = (arguments.against, arguments.data, arguments.second_data, arguments.reference, arguments.split)
        if any(given) or arguments.reference_samples:
            # Figures of or against other images stand beside the first, they do not replace them.
            compared = result.get("reference", {})
            what += [compared[key] for key in ("name", "split", "images") if key in compared]
            what += [*result.get("data", []), *filter(None, [arguments.split])]
        name = "-".join([at_images(result["images_seen"]), *map(str, what)]).replace("/", "_")
        write_whole(run / "evaluations" / f"{name}.json", json.dumps(result, indent=1))
    return 0


def _against(arguments: argparse.Namespace) -> tuple[str | None, str | None]:
    """The shard set (None: the run's own) and the split that ``--against`` names, or the older options."""
    if arguments.against is None:
        return None, arguments.reference
    if arguments.reference:
        raise ValueError("--against names the split too: leave --reference out")
    shards, split = arguments.against, ""
    # A path may hold colons of its own.
    if not Path(shards).exists():
        shards, _, split = shards.rpartition(":") if ":" in shards else (shards, "", "")
    return shards or None, split or None


def _noted(evaluator: Evaluator, result: dict[str, Any], classes: str | None = None) -> dict[str, Any]:
    """The result with remarks where so few pictures are behind the numbers that others do not compare with them,
    and with the one on classes.

    stderr is told, too, and how many pictures there are.
    """
    reference, made, remarks = result.get("reference"), evaluator.num_samples, []
    if made < FEW and any(name.startswith("is/") for name in result):
        remarks.append(f"IS of fewer than {FEW:,} is too low, and comparable only with figures of just as many")
    if reference is None and not remarks:
        return result
    if reference is None:
        print("; ".join([counted(made, "picture"), *remarks]), file=sys.stderr)
        return {**result, "remarks": remarks}
    real = reference["images"]
    if min(made, real) < FEW and any(name.startswith("fid/") for name in result):
        remarks.append(f"FID of fewer than {FEW:,} is too high, and comparable only with figures of just as many")
    size = result.get("settings", {}).get("kid", {}).get("subset_size", SUBSET)
    if size < SUBSET:
        remarks.append(f"KID of subsets of {size:,} instead of {SUBSET:,} is comparable only with figures of such")
    without = result.get("settings", {}).get("prdc", {})
    if copies := [f"{without[f'{side}_copies']:,} {side}" for side in SIDES if f"{side}_copies" in without]:
        remarks.append(
            f"precision, recall, density and coverage find nothing near a picture with {without['nearest_k']} exact "
            f"copies or more, as {' and '.join(copies)} ones have"
        )
    remarks += [classes] if classes else []
    way = f", {result['direction']}" if "direction" in result else ""
    line = f"{counted(made, 'picture')}{way} against {real:,} of {reference['name']}, split {reference['split']}"
    print(": ".join([line, *filter(None, ["; ".join(remarks)])]), file=sys.stderr)
    return {**result, "remarks": remarks} if remarks else result


def _of_run(arguments: argparse.Namespace) -> dict[str, Any]:
    from launch.evaluation.classes import unlike_reference
    from launch.evaluation.driver import needs_data
    from launch.evaluation.front import default_samples
    from launch.evaluation.references import held_out
    from launch.evaluation.sources import data_of, given_sets
    from launch.evaluation.temporal import temporal_consistency
    from launch.inference.loading import load_family
    from launch.inference.pictures import check_ending, check_free, image_grid, save_picture
    from launch.training.family_files import load_pictures

    device = _device(arguments)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=device)
    if changes := sampling.changes(arguments):
        module.sample_with(changes)
    if arguments.sheet:
        check_free(check_ending(arguments.sheet))
        module.require("sheet")
    if arguments.video:
        module.require("stylize")
    options = _options(arguments, default_samples(module))
    evaluator = module.evaluator(options)
    if evaluator is None:
        raise ValueError(f"{arguments.source}: nothing can be measured of {module.described()}")
    # Also where it translates nothing, and no direction can be asked for.
    translates = "translate" in module.abilities() or arguments.direction is not None
    direction = {"direction": module.known_direction(arguments.direction)} if translates else {}
    given = given_sets(evaluator, _asked(arguments))
    wanted = needs_data(evaluator) or arguments.video or arguments.sheet
    data = data_of(Path(origin["path"]), module, given) if wanted else None
    load_pictures(module)
    scores = _score(evaluator, data, device)
    if arguments.video and data is not None:
        family: Any = module
        _, style = family.styles_of(held_out(data, 1, device))[0]
        scores |= temporal_consistency(family, style, device, arguments.video)
    if arguments.sheet and data is not None:
        preview = module.sheet(held_out(data, 8, device))
        print(save_picture(image_grid(*preview), arguments.sheet), file=sys.stderr)
    made = {"sampling": sampled} if (sampled := module.sampled()) else {}
    beside = {**_beside(arguments, evaluator, data), **_measured_pictures(evaluator, data)}
    return _noted(
        evaluator, {**scores, **origin, **direction, **beside, **made}, unlike_reference(evaluator, data, module)
    )


def _asked(arguments: argparse.Namespace) -> Asked:
    """The pictures that were named instead of the run's own."""
    from launch.evaluation.sources import Asked

    shards, split = _against(arguments)
    return Asked(
        {
            "data": "--data",
            "second": "--style-data",
            "against": "--against",
            "split": "--split",
            "reference_split": "--reference" if arguments.reference else "--against",
            "reference_samples": "--reference-samples",
        },
        data=arguments.data,
        second=arguments.second_data,
        against=shards,
        split=arguments.split,
        reference_split=split,
        reference_samples=arguments.reference_samples,
    )


def _real(arguments: argparse.Namespace) -> dict[str, Any]:
    from datamodules.shards import ShardData
    from launch.evaluation import driver
    from lightning_modules.metrics.evaluator import GenerationEvaluator, Pictures

    # Of a set of latents the pictures that were encoded.
    data = ShardData(arguments.set or arguments.data or arguments.source).pictures
    source = ShardData(ShardData(arguments.source).pictures.path, size=data.size, channels=data.channels)
    device, split = _device(arguments), arguments.split or "test"
    number = min(arguments.num_samples or 10**12, source.manifest.split(split).samples)
    pictures = Pictures("image", split)
    options = replace(_options(arguments, number), num_samples=number)
    evaluator = GenerationEvaluator(lambda index, batch: (batch or {})["image"], options, "images", pictures)
    driver.prepare(evaluator, data, device, sources=source, progress=True, option=options.option)
    scores = _score(evaluator, source, device, prepared=True)
    about = {"path": arguments.source, "split": split, **_beside(arguments, evaluator, data)}
    return _noted(evaluator, {**scores, **about, "data": [source.manifest.name]})


def _options(arguments: argparse.Namespace, number: int) -> EvaluationOptions:
    from lightning_modules.metrics.evaluator import EvaluationOptions

    return EvaluationOptions(
        metrics=tuple(arguments.metrics) if arguments.metrics else None,
        extractor=arguments.extractor,
        num_samples=arguments.num_samples or number,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        reference_split=arguments.reference_split,
        reference_samples=arguments.reference_samples,
        split=arguments.split,
        direction=arguments.direction,
        occasion="evaluate",
        option="--metrics",
    )


def _score(
    evaluator: Evaluator, data: ShardData | None, device: torch.device, *, prepared: bool = False
) -> dict[str, float]:
    from launch.evaluation import driver

    if not prepared:
        driver.prepare(evaluator, data, device, progress=True, option="--metrics")
    # How many there will be is certain only when it has begun.
    with _bar(lambda: evaluator.num_samples) as advance:
        return driver.score(evaluator, data, device, progress=advance)


def _beside(arguments: argparse.Namespace, evaluator: Evaluator, data: ShardData | None) -> dict[str, Any]:
    """The facts that make a number comparable, which are printed and saved with it."""
    from launch.evaluation.driver import compared_with

    beside: dict[str, Any] = {"samples": evaluator.num_samples}
    if evaluator.extractor is not None:
        beside["extractor"] = arguments.extractor
    if evaluator.source is None:
        beside["seed"] = arguments.seed
    for reference in compared_with(evaluator, data):
        beside["reference"] = reference
    if evaluator.settings:
        beside["settings"] = evaluator.settings
    if evaluator.source is not None and data is not None:
        beside |= {"data": [stream.manifest.name for stream in data.streams().values()], "size": data.size}
    return beside


def _measured_pictures(evaluator: Evaluator, data: ShardData | None) -> dict[str, Any]:
    """The split of the pictures that a run makes others of, and how many it has if they are taken more than once."""
    from launch.evaluation.driver import stream_of

    if evaluator.source is None or data is None:
        return {}
    stream = stream_of(data, evaluator.source)
    split = evaluator.source.split or stream.held_out_split
    pictures = stream.manifest.split(split).samples
    return {"split": split, **({"pictures": pictures} if pictures < evaluator.num_samples else {})}


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
