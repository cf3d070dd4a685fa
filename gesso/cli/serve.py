"""`gesso serve`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from launch.serving.options import ServeOptions

_DEFAULT = ServeOptions()


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "serve",
        help="serve runs and exported files over HTTP, with a page to try them",
        description="Serves trained models until Ctrl-C or SIGTERM, which end what is under way. The page is at /, the "
        "interface's description at /docs, numbers for Prometheus at /metrics.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RUN_OR_ONNX",
        help="runs, checkpoints, files of `gesso export --onnx`, or adain (published weights); NAME=RUN names one",
    )
    parser.add_argument("--host", default=_DEFAULT.host, help="address (default %(default)s; 0.0.0.0: every one)")
    parser.add_argument("--port", type=int, default=_DEFAULT.port, metavar="P", help="default %(default)s; 0: any")
    parser.add_argument(
        "--token",
        metavar="TEXT",
        help="what requests have to bring (default: $GESSO_TOKEN, which no process list shows)",
    )
    parser.add_argument(
        "--sign",
        nargs=2,
        type=Path,
        metavar=("KEY", "CERT"),
        help="C2PA credentials in each answer, signed by this key (needs gesso[provenance])",
    )
    group = parser.add_argument_group("batches")
    group.add_argument(
        "--max-batch", type=int, metavar="N", help="most pictures at once (default: 8 where that is faster than 1 by 1)"
    )
    group.add_argument(
        "--exact",
        action=argparse.BooleanOptionalAction,
        help="fill each batch up: an answer's bytes never depend on other requests (default: models of one pass)",
    )
    group.add_argument(
        "--workers", type=int, default=_DEFAULT.workers, metavar="N", help="copies of each model (default %(default)s)"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    group.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--queue", type=int, default=_DEFAULT.queue, metavar="N", help="requests under way, of each model (%(default)s)"
    )
    group.add_argument("--max-body", type=float, default=32, metavar="MIB", help="of a request (%(default)s MiB)")
    group.add_argument(
        "--max-pixels", type=float, default=32, metavar="M", help="of a picture, in millions (%(default)s)"
    )
    group.add_argument(
        "--max-side", type=int, default=_DEFAULT.max_side, metavar="N", help="of a result, in pixels (%(default)s)"
    )
    group.add_argument(
        "--grace", type=float, default=_DEFAULT.grace, metavar="S", help="to end what is under way (%(default)g s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.max_batch is not None and arguments.max_batch < 1:
        raise ValueError("--max-batch must be 1 or more")
    options = ServeOptions(
        host=arguments.host,
        port=arguments.port,
        token=os.environ.get("GESSO_TOKEN", "") if arguments.token is None else arguments.token,
        max_batch=arguments.max_batch or 0,
        exact=arguments.exact,
        workers=arguments.workers,
        queue=arguments.queue,
        max_body=round(arguments.max_body * 2**20),
        max_pixels=round(arguments.max_pixels * 1_000_000),
        max_side=arguments.max_side,
        grace=arguments.grace,
    )
    from launch.serving import server

    def say(line: str) -> None:
        print(f"gesso: {line}", file=sys.stderr, flush=True)

    ended = server.serve(
        arguments.sources,
        options,
        device=arguments.device,
        average=not arguments.raw,
        sign=tuple(arguments.sign) if arguments.sign else None,
        notice=say,
    )
    server.end_process(int(not ended))
