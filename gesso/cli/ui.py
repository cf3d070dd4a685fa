"""`gesso ui`."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "ui",
        help="a page of all runs, live: curves, grids, samples of any checkpoint, comparisons",
        description="Shows the runs in and below folders in a browser, those that are training as they go. The page "
        "changes nothing unless --allow-actions lets it queue, resume and cancel runs through `gesso slurm`.",
    )
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", type=Path, default=[Path("runs")], help="of runs (default: runs)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default %(default)s; 0.0.0.0: every one)")
    parser.add_argument("--port", type=int, default=8001, metavar="P", help="default %(default)s; 0: any")
    parser.add_argument(
        "--token", metavar="TEXT", help="what browsers have to bring (default: $GESSO_TOKEN, else a new one each time)"
    )
    parser.add_argument("--allow-actions", action="store_true", help="let the page queue, resume and cancel runs")
    parser.add_argument("--device", default="auto", help="of samples: auto, cpu, cuda, cuda:1 ...")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    token = arguments.token or os.environ.get("GESSO_TOKEN") or secrets.token_urlsafe(18)
    from launch.ui.server import show

    show(
        arguments.folders,
        host=arguments.host,
        port=arguments.port,
        token=token,
        actions=arguments.allow_actions,
        device=arguments.device,
        notice=lambda line: print(f"gesso: {line}", file=sys.stderr, flush=True),
    )
    return 0
