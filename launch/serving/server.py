"""A server from its command to its end: models are loaded, requests answered, and what is under way is ended."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from gesso.common.extras import needing
from launch.serving.app import make_app
from launch.serving.asks import Generate
from launch.serving.desk import Desk
from launch.serving.families import PUBLISHED, served_run
from launch.serving.listening import Server, address_of, listening_socket
from launch.serving.onnx_files import ServedOnnx
from launch.serving.options import ServeOptions
from launch.serving.served import Served
from launch.training.hardware import best_device

with needing("serve"):
    import uvicorn

#: Connections that are open at once, whatever they ask for.
CONNECTIONS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def serve(
    sources: Sequence[str],
    options: ServeOptions,
    *,
    device: str = "auto",
    average: bool = True,
    sign: tuple[Path, Path] | None = None,
    notice: Callable[[str], None] = print,
) -> bool:
    """Serves models until a signal stops the server.

    Args:
        sources: runs, checkpoints, exported files or ``adain``, each maybe as ``NAME=SOURCE``.
        options: see ``ServeOptions``.
        device: of the runs.
        average: with the averaged weights, where there are any.
        sign: key and certificate of the credentials in each answer; None: there are none.
        notice: is told in one line what a user should know.

    Returns:
        Whether everything that was under way could be ended.

    Raises:
        ValueError, FileNotFoundError: a source cannot be served, two have one name; one line.
        OSError: the port is taken.
    """
    # Before anything is loaded: that takes a while.
    signing = None
    if sign is not None:
        from launch.serving.signing import Signing  # needs another extra

        signing = Signing(*sign)
    with listening_socket(options.host, options.port) as listener:
        models = load(sources, options, device=device, average=average)
        for served in models:
            warm(served, options)
            verbs = ", ".join(served.facts.verbs)
            notice(f"{served.facts.name}: {served.facts.what}; {verbs}")
            if signing is not None:
                signing.know(served)
        desk = Desk(models, options, signing)
        address = address_of(listener)
        if not options.token and not address.startswith("http://localhost:"):
            notice("no token: everyone who reaches this port can use it; --token TEXT asks for one")
        notice(f"{address}  (Ctrl-C ends it)")
        server_of(desk).run(sockets=[listener])
    return desk.close()


def server_of(desk: Desk) -> Server:
    """The server of a desk's models."""
    # What its parser says of a stranger's broken upload is the answer's, not the log's.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        make_app(desk),
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(desk.options.grace)),
    )
    return Server(config)


def load(sources: Sequence[str], options: ServeOptions, *, device: str = "cpu", average: bool = True) -> list[Served]:
    """The models of sources, in their order; raises like ``serve``."""
    named = [_named(source) for source in sources]
    for number, (name, path) in enumerate(named):
        if name in (taken := [other for other, _ in named[:number]]):
            raise ValueError(f"{path}: there is a {name} already ({named[taken.index(name)][1]}); write NAME={path}")
    threads = options.threads(len(sources))
    where = best_device(device)
    torch.set_num_threads(threads)
    return [_loaded(name, path, where, threads, average) for name, path in named]


def warm(served: Served, options: ServeOptions) -> None:
    """Runs a model that generates once: the first request waits for nothing, and what cannot run says so now."""
    if "generate" in served.facts.verbs:
        batched = served.batches("generate")
        count = (options.max_batch or served.batch("generate")) if batched else 1
        served.run([Generate()] * count)


def _loaded(name: str, path: str, device: torch.device, threads: int, average: bool) -> Served:
    if path in PUBLISHED and not Path(path).exists():
        return PUBLISHED[path](name, device)
    if Path(path).suffix == ".onnx":
        return ServedOnnx(name, Path(path), threads=threads)
    return served_run(name, path, device, average=average)


def _named(source: str) -> tuple[str, str]:
    """Name and path of ``NAME=PATH``; of a path alone its own name, with what no address holds left out."""
    name, equals, path = source.partition("=")
    if equals and not Path(source).exists():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{source}: a model's name has letters, digits, dots, dashes and underscores")
        return name, path
    file = Path(source).resolve()
    stem = file.stem if file.suffix in (".onnx", ".safetensors") else file.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-_") or "model", source


def end_process(code: int) -> NoReturn:
    """Ends the process at once: threads that are still at work, and taking torch apart, would be waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
