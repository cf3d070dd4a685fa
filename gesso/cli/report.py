"""`gesso report`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "report",
        help="write a run's report.html again",
        description="Writes RUN/report.html from what lies in the run folder: also while the run is training, "
        "or after `gesso evaluate` has added its scores.",
    )
    parser.add_argument("run_folder", metavar="RUN", type=Path)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from launch.report import write_report

    print(write_report(arguments.run_folder))
    return 0
