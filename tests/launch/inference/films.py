"""Videos made and read with PyAV alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from gesso.common.pixels import to_uint8
from launch.inference.video import VideoReport, stylize_video
from tests.pictures import photographs

RATE = 48_000


X264 = {"crf": "12", "preset": "ultrafast"}


def pan(count: int, width: int = 96, height: int = 64) -> Iterator[np.ndarray]:
    """A camera over a photograph: uint8 [height, width, 3] each, no two alike."""
    ground = to_uint8(photographs(max(width, height) + 128))[0].permute(1, 2, 0).numpy()
    for t in range(count):
        step = t % 120
        yield np.ascontiguousarray(ground[step : step + height, step : step + width])


def sine(seconds: float, channels: int = 2) -> np.ndarray:
    """440 Hz, the right channel softer: float32 [channels, samples]."""
    wave = np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)
    return np.stack([0.5 * wave, 0.25 * wave][:channels]).astype(np.float32)


def film(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    layout: str = "yuv420p",
    sound: str | None = None,
    seconds: float = 0.0,
    times: list[int] | None = None,
    time_base: Fraction = Fraction(1, 24),
    turn: tuple[int, bool] | None = None,
    aspect: Fraction = Fraction(1),
    options: dict[str, str] | None = None,
    language: str | None = None,
) -> Path:
    """A video made with nothing of ours."""
    with av.open(str(path), "w", options=options or {}) as out:
        stream: Any = out.add_stream(codec, rate=24, options=X264 if codec == "libx264" else {})
        stream.pix_fmt = layout
        stream.codec_context.time_base, stream.codec_context.sample_aspect_ratio = time_base, aspect
        track: Any = out.add_stream(sound, rate=RATE, bit_rate=192_000) if sound else None
        if track is not None and language is not None:
            track.metadata["language"] = language
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        wave = sine(seconds)
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = times[number] if times else number, time_base
            out.mux(stream.encode(frame))
            if track is not None:
                samples = av.AudioFrame.from_ndarray(wave[:, number * 2000 :][:, :2000].copy(), "fltp", "stereo")
                samples.rate, samples.pts, samples.time_base = RATE, number * 2000, Fraction(1, RATE)
                out.mux(track.encode(samples))
        for one in (stream, track):
            if one is not None:
                out.mux(one.encode(None))
    return path


def same(picture: Tensor) -> Tensor:
    return picture


def convert(source: Path, out: Path, stylize: Any = same, smooth: float = 0.0) -> VideoReport:
    return stylize_video(source, out, stylize, smooth=smooth, progress=lambda done, total: None)


def shown(path: Path) -> list[np.ndarray]:
    """The pictures as FFmpeg alone decodes them: uint8 [H, W, 3]."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    """When each picture is shown, and when the last one ends, in seconds."""
    with av.open(str(path)) as container:
        frames: list[Any] = list(container.decode(video=0))
        found = [frame.pts * frame.time_base for frame in frames]
        return [*found, found[-1] + frames[-1].duration * frames[-1].time_base]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def heard(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "stereo", RATE)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        return np.concatenate([part.to_ndarray() for part in parts], 1)


def apart(wave: np.ndarray, known: np.ndarray) -> float:
    """The largest difference within half a second, at the best shift: coders put some samples before the first."""
    half = RATE // 2
    return min(np.abs(wave[:, half : 2 * half] - known[:, half + k : 2 * half + k]).max() for k in range(-1400, 1400))
