"""Videos in and out of style transfer: frames streamed, sound and timestamps kept, flicker taken out and measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from launch.inference.pictures import Finish
from launch.inference.video_in import Frame, VideoReader
from launch.inference.video_out import VideoWriter, check_name, is_ours
from lightning_modules.metrics.temporal import TemporalConsistency
from lightning_modules.pictures.smoothing import TemporalSmoother

__all__ = ["SUFFIXES", "Frame", "VideoReader", "VideoReport", "VideoWriter", "check_name", "is_ours", "stylize_video"]

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv"}


@dataclass(frozen=True)
class VideoReport:
    """The result of stylising a video.

    Attributes:
        frames: number of frames.
        seconds: length.
        flicker: warping error of what was written, before encoding; see ``TemporalConsistency``. NaN when no two
            frames could be compared.
        flicker_raw: the same of the frames as they were stylised.
        dropped: tracks of sound that could neither be copied nor decoded, in words.
        transparent: whether the video had an alpha channel, which H.264 has not.
    """

    frames: int
    seconds: float
    flicker: float
    flicker_raw: float
    dropped: tuple[str, ...] = ()
    transparent: bool = False


def stylize_video(
    source: Path,
    out: Path,
    stylize: Callable[[Tensor], Tensor],
    *,
    smooth: float,
    progress: Callable[[int, int | None], None],
    finish: Finish | None = None,
) -> VideoReport:
    """Stylises a video, and keeps its sound, timestamps and size; memory does not grow with its length.

    Args:
        source: the video.
        out: an .mp4 file, written when it is whole.
        stylize: one frame [1, 3, H, W] in [-1, 1] on the CPU to one picture, of any size and on any device.
        smooth: how much of the flicker is taken out, from 0 to below 1; see ``TemporalSmoother``.
        progress: called with the frames done and, if it is known, about how many there are.
        finish: see ``launch.inference.pictures.save_frames``.

    Raises:
        FileNotFoundError: there is no source.
        ValueError: the source cannot be read to its end, ``smooth`` or the name of ``out`` will not do.
        OSError: ``out`` cannot be written; in every case what was there before stays as it was.
    """
    smoother = TemporalSmoother(smooth)
    done = begin = end = 0
    made_of = None if finish is None else finish.of(source)
    with VideoReader(source) as video, VideoWriter(out, video, finish=made_of) as writer:
        for done, frame in enumerate(video.frames(writer.sound), 1):
            writer.write(frame, smoother(frame.picture, stylize(frame.picture)))
            begin, end = frame.pts if done == 1 else begin, frame.pts + frame.duration
            progress(done, video.count)
    return VideoReport(
        frames=done,
        seconds=float((end - begin) * video.time_base),
        flicker=flicker(smoother.smoothed),
        flicker_raw=flicker(smoother.raw),
        dropped=tuple(writer.dropped),
        transparent=video.transparent,
    )


def flicker(metric: TemporalConsistency) -> float:
    return metric.compute()["warping_error"].item() if metric.update_called else math.nan
