"""Live pictures: newest first, late ones dropped and counted, and a whole file however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from launch.inference.cameras import open_source
from launch.inference.live import BrokenOff, LiveReport, ending, stylize_live
from tests.launch.inference.films import convert, film, pan, same, shown, times


def after(seconds: float) -> Callable[[Tensor], Tensor]:
    def stylize(picture: Tensor) -> Tensor:
        time.sleep(seconds)
        return -picture

    return stylize


def run(clip: Path, out: Path, *, rate: float | None = None, stylize: Callable[[Tensor], Tensor] = same) -> LiveReport:
    return stylize_live(
        open_source(str(clip), rate=rate or None), stylize, stop=threading.Event(), out=out, every=rate == 0
    )


def test_a_clip_is_played_at_its_own_rate(tmp_path: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", pan(12), sound="aac", seconds=0.5), tmp_path / "out.mp4"
    told: list[LiveReport] = []
    source = open_source(str(clip))
    report = stylize_live(source, same, stop=threading.Event(), out=out, progress=told.append)
    assert report.frames + report.dropped == 12
    assert 11 / 24 <= report.seconds < 5
    assert [one.frames for one in told] == list(range(1, report.frames + 1))
    # The pictures are in the file at the times at which they came.
    assert set(times(out)[:-1]) <= {Fraction(number, 24) for number in range(12)}
    assert times(out)[-2:] == [Fraction(11, 24), Fraction(12, 24)]
    before, made = (shown(path)[-1].astype(np.int16) for path in (clip, out))
    assert np.abs(before - made).mean() < 5


def test_what_comes_meanwhile_is_dropped(tmp_path: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", pan(60)), tmp_path / "out.mp4"
    report = run(clip, out, rate=200, stylize=after(0.04))
    assert report.frames + report.dropped == 60
    assert report.dropped > 30
    # 60 frames of 40 ms are 2.4 s of work: the delay is that of a frame, and does not grow.
    assert report.seconds < 60 * 0.04
    assert 0.04 <= report.work <= report.delay < 0.5
    found = times(out)[:-1]
    assert len(found) == report.frames
    assert set(found) <= {Fraction(number, 200) for number in range(60)}
    # The last to come is the newest, and is not lost.
    assert found[-1] == Fraction(59, 200)


def test_as_fast_as_it_goes_drops_nothing(tmp_path: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", pan(20)), tmp_path / "out.mp4"
    report = run(clip, out, rate=0, stylize=after(0.005))
    assert (report.frames, report.dropped) == (20, 0)
    assert times(out) == times(clip)
    assert np.abs(255 - shown(clip)[7].astype(np.int16) - shown(out)[7]).mean() < 6


def test_ctrl_c_leaves_a_whole_file(tmp_path: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", pan(40)), tmp_path / "out.mp4"
    usual = signal.getsignal(signal.SIGINT)
    seen = []

    def pressed(picture: Tensor) -> Tensor:
        seen.append(picture)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return picture

    with ending() as stop:
        report = stylize_live(open_source(str(clip)), pressed, stop=stop, out=out, every=True)
    assert report.frames == len(seen) == len(shown(out)) == 5
    assert sorted(tmp_path.iterdir()) == [clip, out]
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", pan(6)), tmp_path / "out.mp4"
    convert(clip, out)
    earlier = out.read_bytes()

    def pressed_twice(picture: Tensor) -> Tensor:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return picture

    with pytest.raises(KeyboardInterrupt), ending() as stop:
        stylize_live(open_source(str(clip)), pressed_twice, stop=stop, out=out, every=True)
    assert out.read_bytes() == earlier
    assert sorted(tmp_path.iterdir()) == [clip, out]


def test_stopped_before_the_first_frame_nothing_is_written(tmp_path: Path) -> None:
    clip, out, stop = film(tmp_path / "a.mp4", pan(6)), tmp_path / "out.mp4", threading.Event()
    stop.set()
    report = stylize_live(open_source(str(clip)), same, stop=stop, out=out)
    assert (report.frames, report.fps, report.work) == (0, 0, 0)
    assert sorted(tmp_path.iterdir()) == [clip]


def test_a_clip_that_ends_in_the_middle_of_a_frame(tmp_path: Path) -> None:
    clip, out = film(tmp_path / "a.mp4", pan(48), options={"movflags": "+faststart"}), tmp_path / "out.mp4"
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.6)])
    with pytest.raises(BrokenOff, match=r"a.mp4: not a video that can be read \([^\n]*(broken off|damaged)") as error:
        run(clip, out, rate=0)
    assert 0 < error.value.report.frames == len(shown(out)) < 48
    assert sorted(tmp_path.iterdir()) == [clip, out]


def test_a_frame_that_cannot_be_stylised_costs_no_recording(tmp_path: Path) -> None:
    clip, out, seen = film(tmp_path / "a.mp4", pan(8)), tmp_path / "out.mp4", []

    def fails(picture: Tensor) -> Tensor:
        seen.append(picture)
        if len(seen) == 4:
            raise RuntimeError("out of memory")
        return picture

    with pytest.raises(BrokenOff, match="out of memory"):
        run(clip, out, rate=0, stylize=fails)
    assert len(shown(out)) == 3


def test_smoothing_takes_out_flicker(tmp_path: Path) -> None:
    clip, seen = film(tmp_path / "a.mp4", pan(8)), []
    results: list[Tensor] = []

    def flickers(picture: Tensor) -> Tensor:
        seen.append(picture)
        return (picture + 0.3 * (-1) ** len(seen)).clamp(-1, 1)

    for smooth in (0.0, 0.8):
        results.clear()
        stylize_live(
            open_source(str(clip)), flickers, stop=threading.Event(), show=results.append, smooth=smooth, every=True
        )
        steps = [float((b.mean() - a.mean()).abs()) for a, b in pairwise(results[3:])]
        assert (max(steps) > 0.4) == (smooth == 0)
