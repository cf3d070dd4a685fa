"""`gesso encode`."""

from __future__ import annotations

import argparse
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "encode",
        help="pictures in, latents out: a shard set for latent diffusion",
        description="Encodes every picture of a shard set with a trained autoencoder, and writes a shard set of its "
        "latents. An interrupted encoding goes on when the same command is run again.",
    )
    parser.add_argument("shards", metavar="SHARDS", help="the pictures' shard set")
    parser.add_argument(
        "--with", dest="autoencoder", required=True, metavar="RUN", help="an autoencoder's run, checkpoint or export"
    )
    parser.add_argument("out", metavar="OUT", help="a new folder for the latents")
    parser.add_argument("--flips", action="store_true", help="encode each picture mirrored left to right as well")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the squares (default: the set's own)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--batch-size", type=int, default=32, metavar="B", help="pictures at a time (default 32)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="that decode pictures ahead (default 2)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    for option, least in (("size", 1), ("batch_size", 1), ("workers", 0)):
        if (value := getattr(arguments, option)) is not None and value < least:
            raise ValueError(f"--{option.replace('_', '-')} {value}: must be {least} or more")
    from launch.encoding import EncodingOptions, encode
    from launch.training.hardware import best_device

    options = EncodingOptions(
        flips=arguments.flips,
        size=arguments.size,
        average=not arguments.raw,
        batch_size=arguments.batch_size,
        device=best_device(arguments.device),
        workers=arguments.workers,
    )
    try:
        manifest = encode(arguments.shards, arguments.autoencoder, arguments.out, options)
    except KeyboardInterrupt:
        print(f"gesso: {arguments.out}: run the same command again to go on from here", file=sys.stderr)
        raise
    assert manifest.latents is not None
    assert manifest.size is not None
    height, width = manifest.size
    for name, split in manifest.splits.items():
        print(f"{name}: latents of {split.samples:,} pictures in {len(split.shards):,} shards")
    print(f"{width} x {height} x {manifest.channels}, encoder {manifest.latents.encoder[:16]}")
    print(f"mean {_listed(manifest.latents.mean)}, standard deviation {_listed(manifest.latents.std)}")
    return 0


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
