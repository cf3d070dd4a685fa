"""A picture file through a function and into another file, frame by frame where it is animated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from datamodules.decoding.frames import read_frames
from gesso.common.pixels import to_uint8
from launch.inference.pictures import Finish, as_tensor, decode_file, save_frames


def convert_file(
    source: Path,
    out: Path,
    convert: Callable[[Tensor], Tensor],
    *,
    channels: int = 3,
    finish: Finish | None = None,
) -> Path:
    """Writes what ``convert`` makes of a picture; an animation keeps its frames, their times and its repetitions.

    Args:
        source: the picture file.
        out: the file to write, in the format that its name ends in.
        convert: one picture [1, channels, H, W] in [-1, 1] on the CPU to another [1, C, H', W'], on any device.
        channels: 1 or 3.
        finish: see ``save_frames``; the result is made of ``source``.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError: there is no source.
        ValueError: it is no image, or an animation that ``out`` cannot hold.
        OSError: ``out`` cannot be written.
    """
    frames = decode_file(source, lambda data: read_frames(data, channels))
    made = []
    for picture in frames.pictures:
        result = convert(as_tensor(picture))
        made.append(to_uint8(result)[0].permute(1, 2, 0).cpu().numpy())
    finish = None if finish is None else finish.of(source)
    return save_frames(made, out, frames.milliseconds, plays=frames.plays, finish=finish)
