"""`gesso stylize 0` and `gesso stylize CLIP --live`: a camera, or a clip that stands for one."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.inference.live import LiveReport
    from launch.inference.stylization import Request


def run(arguments: argparse.Namespace, request: Request) -> int:
    """Runs until the camera ends or Ctrl-C does; see ``gesso stylize --help``."""
    _check(arguments)
    rate = arguments.live_rate
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from launch.inference import cameras, folders, live, stylization, video, viewing
    from launch.training.hardware import best_device

    content = Path(arguments.content)
    out = None
    if arguments.out is not None:
        out = folders.plan([content], arguments.out, "stylized", suffix=".mp4", ours=video.is_ours).out
        video.check_name(out)
    with contextlib.ExitStack() as stack:
        # What is not there is known before anything is fetched or computed.
        source = cameras.open_source(arguments.content, rate=rate or None)
        opened = stack.enter_context(contextlib.ExitStack())
        opened.callback(source.close)
        viewer = None
        if out is None or arguments.live_port is not None:
            viewer = stack.enter_context(viewing.Viewer(arguments.live_port or 0))
        device = best_device(arguments.device)
        method = (
            stylization.trained(arguments.run_folder, device)[0]
            if arguments.run_folder
            else stylization.stylizer(arguments.method, device)
        )
        console = Console(stderr=True)
        bar = stack.enter_context(
            Progress(
                TextColumn("live  {task.description}"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
        )
        if viewer is not None:
            print(
                f"to look at, in a browser: {viewer.url}  (from another machine, first: "
                f"ssh -L {viewer.port}:127.0.0.1:{viewer.port} THIS_ONE)",
                file=sys.stderr,
            )
        task = bar.add_task("waiting for the first frame", total=None)

        def told(report: LiveReport) -> None:
            bar.update(task, description=str(report))

        stop = stack.enter_context(live.ending())
        # From here on it is closed by whoever reads it.
        opened.pop_all()
        try:
            report = live.stylize_live(
                source,
                stylization.frames_through(method, request, device),
                stop=stop,
                out=out,
                show=None if viewer is None else viewer.show,
                smooth=arguments.smooth or 0.0,
                every=rate == 0,
                progress=told,
            )
        except live.BrokenOff as broken:
            if out is not None and broken.report.frames:
                raise ValueError(f"{broken}; the {broken.report.frames} frames before are in {out}") from broken
            raise
    print(live.summary(report), file=sys.stderr)
    if out is not None and report.frames:
        print(out)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises a ValueError for options that no camera has."""
    if arguments.method == "gatys" and not arguments.run_folder:
        raise ValueError("gatys takes minutes a picture: --method adain and runs of your own go live")
    rate = arguments.live_rate
    if rate is not None and not 0 <= rate <= 1000:
        raise ValueError(f"--live-rate is {rate:g}; it goes from 0 (as fast as it goes) to 1000 frames a second")
    if arguments.live_port is not None and not 0 <= arguments.live_port < 2**16:
        raise ValueError(f"--live-port is {arguments.live_port}; ports go from 1 to 65535, and 0 is any")
    if arguments.smooth is not None and not (0 <= arguments.smooth < 1 and math.isfinite(arguments.smooth)):
        raise ValueError(f"--smooth is {arguments.smooth:g}; it goes from 0 (every frame for itself) to below 1")
