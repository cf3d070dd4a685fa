"""`gesso stylize`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gesso.cli import publishing
from gesso.common.arguments import seed

if TYPE_CHECKING:
    from launch.inference.stylization import Request

#: How much of its flicker is taken out of a video.
SMOOTH = 0.7


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "stylize",
        help="put a picture, a folder of them, a video or a camera into the style of others",
        description="AdaIN (Huang and Belongie 2017) does it in one pass, with its published decoder; gatys (Gatys et "
        "al. 2016) optimises the picture itself, which takes minutes and looks best.",
    )
    parser.add_argument("content", metavar="CONTENT", help="a picture, a folder of pictures, a video, or a camera (0)")
    parser.add_argument("--style", nargs="+", default=[], metavar="PICTURE", help="one or more")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="how much of each style")
    parser.add_argument(
        "--mask",
        nargs="+",
        metavar="PICTURE",
        help="one for each style: white is where it goes; where none is white the content stays",
    )
    parser.add_argument(
        "--style-mask", nargs="+", metavar="PICTURE", help="one for each style: white is where its style is taken from"
    )
    parser.add_argument("--alpha", type=float, default=1.0, metavar="A", help="from 0 (the content) to 1 (default)")
    parser.add_argument(
        "--preserve-color",
        nargs="?",
        const="match",
        default="no",
        choices=("match", "luminance"),
        help="keep the content's colours: recolour the style first (match), or take its luminance alone",
    )
    parser.add_argument("--size", type=int, metavar="N", help="longer side in pixels (default: the content's)")
    parser.add_argument("--style-size", type=int, metavar="N", help="of the styles: small gives fine strokes")
    parser.add_argument(
        "--tile", type=int, metavar="N", help="work on squares of N pixels (default: large pictures only; 0: never)"
    )
    parser.add_argument(
        "--smooth", type=float, metavar="S", help="videos: how much flicker is taken out, 0 to below 1 (default: 0.7)"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="take CONTENT for a camera: frames that come while one is worked on are dropped. Cameras (0, "
        "/dev/video0), streams (rtsp://...) and standard input (-) are live by themselves",
    )
    parser.add_argument(
        "--live-rate",
        type=float,
        metavar="R",
        help="live: frames per second of the camera, or of the clip that stands for it (default: its own); 0: a "
        "clip's every frame, as fast as it goes",
    )
    parser.add_argument(
        "--live-port",
        type=int,
        metavar="N",
        help="live: of this machine, to look at the result in a browser (default: any, without --out)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--method", choices=("adain", "gatys"), default="adain")
    how.add_argument("--run", dest="run_folder", metavar="RUN", help="a run or checkpoint of your own instead")
    parser.add_argument("--steps", type=int, metavar="N", help="gatys: iterations at the smallest scale (default: 200)")
    parser.add_argument("--seed", type=seed, help="gatys: of where it begins (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--out", metavar="FILE_OR_FOLDER", help="default: CONTENT-stylized")
    publishing.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    if _is_live(arguments):
        if arguments.sign or arguments.watermark is not None or arguments.journal:
            raise ValueError("--sign, --watermark and --journal are not for cameras: `gesso sign` signs a recording")
        from gesso.cli.live import run as run_live

        return run_live(arguments, _request(arguments))
    for name in ("live_rate", "live_port"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for a camera, or a clip that stands for it with --live")
    from rich.console import Console
    from rich.progress import Progress

    from launch.inference import folders, pictures, stylization, video
    from launch.training.hardware import best_device

    content = Path(arguments.content)
    clip = content.suffix.lower() in video.SUFFIXES and not content.is_dir()
    if arguments.smooth is not None and not clip:
        raise ValueError(f"--smooth is for videos, and {content} is none")
    ours = video.is_ours if clip else pictures.is_ours
    planned = folders.plan([content], arguments.out, "stylized", suffix=".mp4" if clip else ".png", ours=ours)
    # What cannot be read is known before anything is fetched or computed.
    request = _request(arguments)
    finish = publishing.asked(arguments, [job.target for job in planned.jobs])
    device = best_device(arguments.device)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("stylize", total=len(planned.jobs))

        def iterated(done: int, total: int, loss: float) -> None:
            whole = int(bar.tasks[task].completed)
            bar.update(task, completed=whole + min(done / total, 0.99), description=f"stylize  loss {loss:.4g}")

        if arguments.run_folder:
            method, origin = stylization.trained(arguments.run_folder, device)
        else:
            origin = {}
            method = stylization.stylizer(
                arguments.method, device, steps=arguments.steps or 200, seed=arguments.seed or 0, progress=iterated
            )
        if finish is not None:
            finish = finish.with_facts(_facts(arguments, type(method).__name__, origin))
        if clip:

            def framed(done: int, total: int | None) -> None:
                bar.update(task, completed=done, total=total)

            report = stylization.stylize_clip(
                content,
                planned.out,
                method,
                request,
                device,
                smooth=SMOOTH if arguments.smooth is None else arguments.smooth,
                progress=framed,
                finish=finish,
            )
            print(report, file=sys.stderr)
            failed = 0
        else:
            failed = folders.run(
                planned,
                lambda file, target: stylization.stylize_file(file, target, method, request, device, finish=finish),
                lambda done: bar.update(task, completed=done),
            )
    print(planned.out)
    return int(failed > 0)


def _check(arguments: argparse.Namespace) -> None:
    """Raises a ValueError for options that do not go together or are out of their range."""
    if not arguments.style and not arguments.run_folder:
        raise ValueError("no style: name one picture or more with --style (a run trained for its own needs none)")
    if min(value for value in (arguments.size, arguments.style_size, arguments.steps, 1) if value is not None) < 1:
        raise ValueError("--size, --style-size and --steps must be 1 or more")
    if not arguments.style and arguments.preserve_color == "match":
        raise ValueError(
            "--preserve-color match recolours style pictures, and there are none: --preserve-color luminance keeps "
            "the content's colours"
        )
    if not arguments.style and arguments.style_size is not None:
        raise ValueError("--style-size is of style pictures: name them with --style")
    if arguments.method == "gatys" and arguments.style_size is not None:
        raise ValueError("--style-size is not for --method gatys: gatys brings styles to the content's size")
    if arguments.method != "gatys" or arguments.run_folder:
        for name in ("steps", "seed"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} is for --method gatys: the others go over a picture once, the same way")


def _is_live(arguments: argparse.Namespace) -> bool:
    content, path = arguments.content, Path(arguments.content)
    # Known without the libraries that cameras need and pictures do not.
    named = content.isdecimal() or content == "-" or "://" in content or content.startswith("/dev/")
    return bool(arguments.live or (named and not (path.is_file() or path.is_dir())))


def _facts(arguments: argparse.Namespace, kind: str, origin: dict[str, Any]) -> dict[str, object]:
    """What is known of the pictures' making."""
    from launch.provenance import facts_of
    from launch.publishing.licences import style_facts

    styles = style_facts([Path(name) for name in arguments.style])
    if origin:
        return facts_of(origin, kind, styles=styles, alpha=arguments.alpha)
    drawn = {"seed": arguments.seed or 0, "steps": arguments.steps or 200} if arguments.method == "gatys" else {}
    return {"method": arguments.method, "styles": styles, "alpha": arguments.alpha, **drawn}


def _request(arguments: argparse.Namespace) -> Request:
    from launch.inference import stylization
    from launch.inference.pictures import read_picture
    from lightning_modules.pictures.sizes import fit

    styles = [read_picture(Path(name)) for name in arguments.style]
    names = arguments.style_mask or []
    if names and len(names) != len(styles):
        raise ValueError(f"--style-mask has {len(names)} pictures for {len(styles)} styles: give one for each")
    regions = [stylization.read_mask_of(Path(name), style) for name, style in zip(names, styles, strict=False)]
    if arguments.style_size:
        styles = [fit(style, arguments.style_size) for style in styles]
        regions = [fit(mask[None, None], arguments.style_size)[0, 0].clamp(0, 1) for mask in regions]
    return stylization.Request(
        styles=styles,
        weights=arguments.weights,
        masks=[Path(name) for name in arguments.mask or ()],
        regions=regions or None,
        alpha=arguments.alpha,
        colors=arguments.preserve_color,
        size=arguments.size,
        tile=arguments.tile,
    )
