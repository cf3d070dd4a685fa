"""`gesso average`: a moving average of another length, after training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

#: Relative error of a profile that is worth a warning.
NOTABLE = 0.01


def add_parser(verbs: Any) -> None:
    """Registers the verb."""
    what = "an average of another relative width out of a run's snapshots (train with --ema.widths '[0.05, 0.1]')"
    parser = verbs.add_parser("average", help="average weights over another length, after training", description=what)
    parser.add_argument("run_folder", metavar="RUN")
    parser.add_argument("--width", type=float, required=True, metavar="S", help="relative width, such as 0.075")
    parser.add_argument("--at", type=float, metavar="KIMG", help="the moment of a snapshot (default: the last one)")
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", help="default: in the run's folder averages")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes one safetensors file and its config, as ``gesso checkpoint export`` does."""
    from launch.inference.averaging import average_of_width

    at = None if arguments.at is None else round(arguments.at * 1000)
    width = arguments.width
    file, images_seen, error = average_of_width(arguments.run_folder, width, images_seen=at, out=arguments.out)
    print(
        f"{file}: the average of relative width {width:g} at {images_seen / 1000:g} kimg (its profile is off by "
        f"{error:.2%})"
    )
    if error > NOTABLE:
        print(
            f"gesso: the profile of width {width:g} is off by {error:.1%}: what is kept gives it only roughly; widths "
            "between the kept ones come out better, and more snapshots (--ema.snapshot_every_kimg) help",
            file=sys.stderr,
        )
    return 0
