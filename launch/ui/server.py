"""``gesso ui`` from its command to its end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gesso.common.extras import needing
from launch.serving.listening import Server, address_of, listening_socket
from launch.ui.app import Shelf, make_app
from launch.ui.runs import find_runs
from launch.ui.samples import Sampler

with needing("serve"):
    import uvicorn


def show(
    folders: Sequence[Path],
    *,
    host: str,
    port: int,
    token: str,
    actions: bool,
    device: str,
    notice: Callable[[str], None],
) -> None:
    """Shows the runs in and below folders until a signal ends it.

    Args:
        folders: where they are.
        host, port: of the server; port 0: any free one.
        token: what browsers have to bring.
        actions: whether runs may be queued, resumed and cancelled.
        device: on which samples are made.
        notice: is told the address.

    Raises:
        FileNotFoundError: a folder is not there.
        OSError: the port is taken.
    """
    find_runs(folders)
    shelf = Shelf(folders, slurm if actions else None, Sampler(device))
    with listening_socket(host, port) as listener:
        notice(f"{address_of(listener)}?token={token}  (Ctrl-C ends it)")
        config = uvicorn.Config(
            make_app(shelf, token), log_level="warning", access_log=False, lifespan="off", server_header=False
        )
        Server(config).run(sockets=[listener])


def slurm(words: Sequence[str]) -> tuple[str, bool]:
    """What ``gesso slurm`` says to these words, and whether it succeeded: in a process of its own, as in a shell."""
    done = subprocess.run([sys.executable, "-m", "gesso", "slurm", *words], capture_output=True, text=True)
    said = "\n".join(part.strip() for part in (done.stdout, done.stderr) if part.strip())
    return said or "done", done.returncode == 0
