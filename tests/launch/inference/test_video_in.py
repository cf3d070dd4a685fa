"""What is no video, or not all of one, is an error in one line."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from launch.inference.video import VideoReader
from tests.launch.inference.films import RATE, convert, film, pan, sine


def test_what_is_no_video_ends_in_one_line(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", pan(24), sound="aac", seconds=1)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 50)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "headless.mp4").write_bytes(whole.read_bytes()[:4000])
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as out:
        track: Any = out.add_stream("aac", rate=RATE)
        samples = av.AudioFrame.from_ndarray(sine(1), "fltp", "stereo")
        samples.rate = RATE
        out.mux([*track.encode(samples), *track.encode(None)])
    for name in ("empty.mp4", "text.mp4", "noise.mp4", "headless.mp4", "sound.m4a"):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError, match=rf"/{name}: not a video that can be read \([^\n]+\)$"):
            convert(tmp_path / name, tmp_path / "out.mp4")
        assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(ValueError, match="no video stream"):
        VideoReader(tmp_path / "sound.m4a")
    with pytest.raises(FileNotFoundError, match=r"nowhere.mp4: no such video"):
        VideoReader(tmp_path / "nowhere.mp4")
    with pytest.raises(ValueError, match=r"out.avi: videos are written as MP4"):
        convert(whole, tmp_path / "out.avi")
    with pytest.raises(OSError, match=r"out.mp4: cannot be written"):
        convert(whole, whole / "out.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.flv"])
@pytest.mark.parametrize("kept", [0.4, 0.6, 0.8])
def test_half_a_video_is_an_error(tmp_path: Path, name: str, kept: float) -> None:
    codec, sound = ("libvpx-vp9", "libopus") if name == "a.webm" else ("libx264", "aac")
    options = {"movflags": "+faststart"} if name == "a.mp4" else None
    source = film(tmp_path / name, pan(72), codec=codec, sound=sound, seconds=3, options=options)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * kept)])
    out = tmp_path / "out.mp4"
    out.write_bytes(b"what was there before")
    with pytest.raises(
        ValueError, match=rf"/{name}: not a video that can be read \([^\n]*(broken off|damaged)[^\n]*\)$"
    ):
        convert(source, out)
    assert out.read_bytes() == b"what was there before"
    assert sorted(tmp_path.iterdir()) == sorted([source, out])


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", pan(72))
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    source.write_bytes(data)
    with pytest.raises(ValueError, match="not a video that can be read"):
        convert(source, tmp_path / "out.mp4")
    assert sorted(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")],
)
def test_a_clip_that_ends_in_the_middle_of_a_frame(tmp_path: Path, name: str, codec: str) -> None:
    options = {"movflags": "+faststart"} if name == "a.mp4" else None
    source, out = film(tmp_path / name, pan(24), codec=codec, options=options), tmp_path / "out.mp4"
    data = source.read_bytes()
    with VideoReader(source) as video:
        whole = [frame.picture for frame in video.frames()]
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]

    def cut(number: int) -> None:
        place, size = places[number]
        assert place is not None
        source.write_bytes(data[: place + size // 2])

    cut(12)
    with pytest.raises(
        ValueError, match=rf"/{name}: not a video that can be read \([^\n]*(broken off|damaged)[^\n]*\)$"
    ):
        convert(source, out)
    assert sorted(tmp_path.iterdir()) == [source]
    # Of the very last one, some containers leave no trace; then all the others come, and no half picture.
    cut(-1)
    found: list[Tensor] = []
    traced = name in ("a.mp4", "a.ts", "a.avi")
    with pytest.raises(ValueError, match="damaged") if traced else nullcontext(), VideoReader(source) as video:
        found.extend(frame.picture for frame in video.frames())
    # Decoders hold pictures back, which damage behind them takes away.
    assert traced or len(found) == 23
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, whole, strict=False))
