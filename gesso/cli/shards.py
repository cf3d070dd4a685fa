"""`gesso shards`: make, look at and check shard sets."""

from __future__ import annotations

import argparse
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("shards", help="make, look at and check shard sets")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_build(verbs)
    _add_inspect(verbs)
    _add_verify(verbs)
    _add_index(verbs)


def _add_build(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "build",
        help="images in, shards out",
        description="Makes a shard set. What is broken, too small, too large or there twice is dropped and listed in "
        "OUT/report.txt. An interrupted build goes on when the same command is run again.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder or zip of images at any depth (its first folders are the classes, unless StyleGAN's "
        "dataset.json has the labels; a .txt beside an image is its caption), tars (path, 'glob*.tar', "
        "'{000..009}.tar', URL), or a data set by name (`gesso fetch --list`)",
    )
    parser.add_argument("out", metavar="OUT", help="a new folder for the shards")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="default: leave images as large as they are")
    parser.add_argument(
        "--resize",
        default="center_crop",
        choices=["center_crop", "squash", "shortest", "none"],
        help="center_crop (default) and squash give SIZE x SIZE, shortest makes the shorter side SIZE",
    )
    parser.add_argument("--channels", type=int, choices=[1, 3], help="1 grey, 3 colour; default 1 if all are grey")
    parser.add_argument("--format", choices=["jpg", "png", "webp"], help="default jpg; png for data sets by name")
    parser.add_argument("--quality", type=int, default=95, metavar="Q", help="of jpg and webp, 1 to 100 (default 95)")
    parser.add_argument("--samples-per-shard", type=int, default=10_000, metavar="N", help="default 10000")
    parser.add_argument(
        "--splits",
        metavar="A/B/C",
        help="shares of train/val/test by content, such as 80/10/10 (default), 90/10 or 100; `official` (the default "
        "of mnist and cifar10) keeps the authors' splits",
    )
    parser.add_argument(
        "--min-size", type=int, default=1, metavar="PIXELS", help="drop images whose shorter side is under it"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=100_000_000, metavar="N", help="drop images of more (default 100 million)"
    )
    parser.add_argument("--no-classes", action="store_true", help="class folders (or .cls members) are no labels")
    parser.add_argument("--keep-duplicates", action="store_true", help="keep images with the same pixels as another")
    parser.add_argument("--no-captions", action="store_true", help="leave captions out")
    parser.add_argument(
        "--restart-markers",
        action="store_true",
        help="JPEGs get restart markers, without loss: they grow by some 5 %% and crops are decoded the faster, the "
        "smaller they are",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a processor)")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished shard set in OUT")
    parser.set_defaults(run=_build)


def _add_inspect(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser("inspect", help="counts, sizes, classes, and a contact sheet as PNG")
    parser.add_argument("shards", metavar="OUT", help="the shard set's folder")
    parser.add_argument("--allow-pipe", action="store_true", help="let a manifest's pipe: URLs run their commands")
    parser.set_defaults(run=_inspect)


def _add_verify(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser("verify", help="check every byte: checksums, indices, that all images decode")
    parser.add_argument("shards", metavar="OUT", help="the shard set's folder")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a processor)")
    parser.add_argument("--allow-pipe", action="store_true", help="let a manifest's pipe: URLs run their commands")
    parser.set_defaults(run=_verify)


def _add_index(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "index",
        help="make foreign WebDataset tars usable where they are",
        description="Reads each tar once and writes a manifest and indices into OUT; the tars stay where they are.",
    )
    parser.add_argument(
        "urls", nargs="+", metavar="URL", help="tars of the training split: paths, globs, braces, http(s):, pipe:"
    )
    parser.add_argument("--val", nargs="+", default=[], metavar="URL", help="tars of the validation split")
    parser.add_argument("--test", nargs="+", default=[], metavar="URL", help="tars of the test split")
    parser.add_argument("--out", required=True, metavar="OUT", help="a new folder for the manifest")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="tars read at a time (default 4)")
    parser.set_defaults(run=_index)


def _build(arguments: argparse.Namespace) -> int:
    from datamodules.building.build import build
    from datamodules.building.options import BuildOptions

    options = BuildOptions(
        size=arguments.size,
        resize=arguments.resize,
        channels=arguments.channels,
        format=arguments.format,
        quality=arguments.quality,
        samples_per_shard=arguments.samples_per_shard,
        splits=arguments.splits,
        min_size=arguments.min_size,
        max_pixels=arguments.max_pixels,
        classes=not arguments.no_classes,
        captions=not arguments.no_captions,
        keep_duplicates=arguments.keep_duplicates,
        restart_markers=arguments.restart_markers,
    )
    workers = _workers(arguments)
    try:
        manifest = build(arguments.source, arguments.out, options, workers=workers, overwrite=arguments.overwrite)
    except KeyboardInterrupt:
        print(f"gesso: {arguments.out}: run the same command again to go on from here", file=sys.stderr)
        raise
    print((manifest.root / "report.txt").read_text(encoding="utf-8"), end="")
    _next(arguments.out)
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from datamodules.building.inspection import inspect

    found = inspect(arguments.shards, allow_pipe=arguments.allow_pipe)
    manifest = found.manifest
    size = f"{manifest.size[1]} x {manifest.size[0]}" if manifest.size else "of several sizes"
    captions = ", captions" if manifest.captions else ""
    if (latents := manifest.latents) is not None:
        print(f"{manifest.name}: latents {size} x {manifest.channels}{', and mirrored' * latents.flips}{captions}")
        print(f"encoder {latents.encoder}")
    else:
        print(f"{manifest.name}: images {size}, {'grey' if manifest.channels == 1 else 'colour'}{captions}")
    console = Console()
    table = Table("split", "images", "shards", "MB", "kB an image", box=None, pad_edge=False)
    for name, split in found.splits.items():
        numbers = (f"{split['samples']:,.0f}", f"{split['shards']:,.0f}", f"{split['bytes'] / 1e6:,.1f}")
        table.add_row(name, *numbers, f"{split['bytes_per_image'] / 1e3:.1f}")
    console.print(table)
    for name, classes in found.classes.items():
        console.print(f"\n{name}: {len(classes)} classes", highlight=False)
        widest = max(map(len, classes))
        largest = max(1, *classes.values())
        for label, count in list(classes.items())[:50]:
            bar = ("#" if console.options.ascii_only else "█") * round(40 * count / largest)
            console.print(f"  {label:{widest}} {count:>9,} {bar}", markup=False, highlight=False)
        if len(classes) > 50:
            print(f"  and {len(classes) - 50} more")
    if found.sheet is not None:
        print(f"\ncontact sheet: {found.sheet}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from datamodules.building.inspection import verify

    problems = verify(arguments.shards, workers=_workers(arguments), allow_pipe=arguments.allow_pipe)
    for problem in problems:
        print(problem)
    if problems:
        print(f"\n{arguments.shards}: {len(problems)} problems")
        return 1
    print(f"{arguments.shards}: all shards, indices and images are good")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    from datamodules.building.foreign import index

    urls = {"train": arguments.urls, "val": arguments.val, "test": arguments.test}
    manifest = index(urls, arguments.out, workers=_workers(arguments))
    for name, split in manifest.splits.items():
        print(f"{name}: {split.samples:,} images in {len(split.shards):,} tars")
    _next(arguments.out)
    return 0


def _workers(arguments: argparse.Namespace) -> int:
    import os

    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"--workers {arguments.workers}: must be 1 or more")
    return arguments.workers or os.cpu_count() or 1


def _next(out: str) -> None:
    print(f"\nlook at it:  gesso shards inspect {out}")
    print(f"train on it: gesso fit --config RECIPE --data.path {out}   (`gesso recipes` lists them)")
