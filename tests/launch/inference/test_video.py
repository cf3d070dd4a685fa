"""Videos through style transfer: pictures, times and sound as they were, whatever the camera wrote."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from launch.inference import video_out
from launch.inference.video import VideoReader, stylize_video
from tests.launch.inference.films import RATE, apart, convert, film, heard, packets, pan, same, shown, sine, times


@pytest.mark.slow
def test_ten_seconds_come_out_as_they_went_in(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", pan(240, 160, 120), sound="aac", seconds=10)
    calls: list[tuple[int, int | None]] = []
    out = tmp_path / "made" / "out.mp4"
    report = stylize_video(source, out, same, smooth=0.5, progress=lambda *call: calls.append(call))
    assert (report.frames, report.seconds, report.dropped) == (240, 10.0, ())
    assert calls == [(number, 240) for number in range(1, 241)]
    assert times(out) == times(source)
    before, after = (np.stack(shown(path)).astype(np.int16) for path in (source, out))
    assert after.shape == before.shape
    assert np.abs(after - before).mean() < 3
    # No shift of colour, no flip, nothing turned.
    assert np.abs((after - before).mean((0, 1, 2))).max() < 0.7
    assert packets(out) == packets(source)
    waves = [heard(path) for path in (source, out)]
    np.testing.assert_allclose(waves[1], waves[0], atol=1e-6)
    assert waves[1].shape[1] == pytest.approx(10 * RATE, abs=2048)
    assert apart(waves[1], sine(10)) < 0.03
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec", "sound", "copied"),
    [
        ("a.mov", "libx264", "pcm_s16le", False),
        ("a.mkv", "libx264", "flac", True),
        ("a.webm", "libvpx-vp9", "libopus", True),
        ("a.avi", "mpeg4", "libmp3lame", True),
        ("a.ts", "libx264", "aac", False),
        ("a.mpg", "mpeg2video", "mp2", False),
    ],
)
def test_other_containers_and_their_sound(tmp_path: Path, name: str, codec: str, sound: str, copied: bool) -> None:
    source, out = film(tmp_path / name, pan(48), codec=codec, sound=sound, seconds=2), tmp_path / "out.mp4"
    assert convert(source, out).frames == 48
    with av.open(str(out)) as container:
        expected = {"libopus": "opus", "libmp3lame": "mp3", "flac": "flac"}.get(sound, "aac")
        assert container.streams.audio[0].codec_context.codec.canonical_name == expected
        assert container.streams.video[0].codec_context.codec.canonical_name == "h264"
    if copied:
        assert packets(out) == packets(source)
    # In step with the picture: the same delay to the first picture's time, wherever the file began to count.
    starts = []
    for path in (source, out):
        with av.open(str(path)) as container:
            first = [
                (s.start_time or 0) * (s.time_base or 0)
                for s in (container.streams.video[0], container.streams.audio[0])
            ]
            starts.append(float(first[1] - first[0]))
    assert starts[0] == pytest.approx(starts[1], abs=0.002)
    assert apart(heard(out), heard(source)) < 0.05


@pytest.mark.parametrize(("name", "sound"), [("a.mp4", "aac"), ("a.mkv", "libmp3lame"), ("a.mkv", "pcm_s16le")])
def test_sound_keeps_its_language(tmp_path: Path, name: str, sound: str) -> None:
    out = tmp_path / "out.mp4"
    convert(film(tmp_path / name, pan(4), sound=sound, seconds=1, language="deu"), out)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].metadata["language"] in ("deu", "ger")


@pytest.mark.parametrize(
    ("name", "codec", "layout", "has"),
    [
        ("a.mov", "qtrle", "argb", True),
        ("a.webm", "libvpx-vp9", "yuva420p", True),
        ("b.webm", "libvpx-vp9", "yuv420p", False),
        ("a.mp4", "libx264", "yuv420p", False),
    ],
)
def test_transparency_that_is_left_out_is_known(tmp_path: Path, name: str, codec: str, layout: str, has: bool) -> None:
    source = film(tmp_path / name, pan(2), codec=codec, layout=layout)
    assert convert(source, tmp_path / "out.mp4").transparent is has


def test_timestamps_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    for name, base in (("a.mkv", Fraction(1, 1000)), ("b.mp4", Fraction(1, 90_000))):
        seconds = [0, 0.04, 0.05, 0.31, 0.33, 1.2, 1.24, 2.9, 2.95, 3.0]
        ticks = [round(second / base) for second in seconds]
        source = film(tmp_path / name, pan(10), times=ticks, time_base=base)
        assert times(source)[:10] == [tick * base for tick in ticks]
        out = tmp_path / f"{name}-out.mp4"
        assert convert(source, out).frames == 10
        assert times(out)[:10] == times(source)[:10]
        with VideoReader(source) as video:
            assert [frame.pts * video.time_base for frame in video.frames()] == times(source)[:10]


def test_the_last_picture_stays_as_long_as_it_did(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", pan(12), sound="aac", seconds=0.5)
    assert convert(source, tmp_path / "out.mp4").seconds == 0.5
    assert times(tmp_path / "out.mp4")[-1] == times(source)[-1] == Fraction(1, 2)


@pytest.mark.parametrize(("width", "height"), [(97, 63), (96, 63), (97, 64), (17, 3), (2, 2), (1, 1)])
def test_odd_sizes_are_kept(tmp_path: Path, width: int, height: int) -> None:
    source = film(tmp_path / "a.mkv", pan(6, width, height), layout="yuv444p")
    out = tmp_path / "out.mp4"
    with VideoReader(source) as video:
        assert video.size == (width, height)
    assert convert(source, out, smooth=0.5).frames == 6
    before, after = (np.stack(shown(path)).astype(np.int16) for path in (source, out))
    assert after.shape == before.shape == (6, height, width, 3)
    assert np.abs(after - before).mean() < (5 if width > 20 else 12)


@pytest.mark.slow
@pytest.mark.parametrize("turn", [(0, False), (90, False), (180, False), (270, False), (0, True), (90, True)])
def test_telephones_lie_on_their_side(tmp_path: Path, turn: tuple[int, bool]) -> None:
    source = film(tmp_path / "a.mp4", pan(3), layout="yuv444p", turn=turn, aspect=Fraction(4, 3))
    out = tmp_path / "out.mp4"
    convert(source, out)
    stored = shown(source)[0].astype(np.int16)
    # The degrees are counter-clockwise, the mirror comes after.
    expected = np.rot90(stored, turn[0] // 90)
    expected = expected[:, ::-1] if turn[1] else expected
    made = shown(out)[0].astype(np.int16)
    assert made.shape == expected.shape
    assert np.abs(made - expected).mean() < 5
    if not turn[1]:
        ok, player = cv2.VideoCapture(str(source)).read()
        assert ok
        assert np.abs(made - player[..., ::-1].astype(np.int16)).mean() < 5
    with av.open(str(out)) as container:
        assert next(container.decode(video=0)).rotation == 0
        expected_aspect = Fraction(3, 4) if turn[0] % 180 else Fraction(4, 3)
        assert container.streams.video[0].sample_aspect_ratio == expected_aspect


MATRICES = {"bt709": (1, 0.2126, 0.0722), "bt601": (6, 0.299, 0.114), "bt2020": (9, 0.2627, 0.0593)}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_are_those_of_the_standards(tmp_path: Path, matrix: str, full: bool) -> None:
    """Y' = Kr R + (1 - Kr - Kb) G + Kb B, Cb = (B - Y') / (2 - 2 Kb), Cr likewise (ITU-R BT.601, 709 and 2020)."""
    tag, kr, kb = MATRICES[matrix]
    rng = np.random.default_rng(0)
    rgb = rng.uniform(0.1, 0.9, (4, 6, 3)).repeat(16, 0).repeat(16, 1)
    luma = rgb @ (kr, 1 - kr - kb, kb)
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * kb), (rgb[..., 0] - luma) / (2 - 2 * kr)]
    planes = (
        [luma * 255, *(c * 255 + 128 for c in chroma)] if full else [luma * 219 + 16, *(c * 224 + 128 for c in chroma)]
    )
    coded = np.stack(planes).round().astype(np.uint8)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=24, width=96, height=64, options={"qp": "0"})
        stream.pix_fmt = "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 1
        out.mux(stream.encode(av.VideoFrame.from_ndarray(coded, "yuv444p")))
        out.mux(stream.encode(None))
    with VideoReader(path) as video:
        picture = next(video.frames()).picture
    assert picture.shape == (1, 3, 64, 96)
    assert picture.dtype == torch.float32
    read = (picture[0].permute(1, 2, 0).numpy() + 1) / 2
    assert np.abs(read - rgb).max() < 0.015
    convert(path, tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as video:
        again = (next(video.frames()).picture[0].permute(1, 2, 0).numpy() + 1) / 2
        assert video.first.colorspace == 1
        assert video.first.color_range == 1
    # Away from the patches' borders, which 4:2:0 smears.
    inner = (slice(8, None, 16), slice(8, None, 16))
    assert np.abs(again[inner] - rgb[inner]).max() < 0.03


def test_a_picture_of_another_size_and_flicker_that_goes(tmp_path: Path) -> None:
    source, noise = film(tmp_path / "a.mp4", pan(16, 128, 96)), torch.Generator().manual_seed(0)

    def half(picture: Tensor) -> Tensor:
        small = F.interpolate(picture, scale_factor=0.5, mode="bilinear", antialias=True)
        return small + 0.15 * torch.randn(small.shape, generator=noise)

    report = convert(source, tmp_path / "out.mp4", half, smooth=0.8)
    assert shown(tmp_path / "out.mp4")[0].shape == (48, 64, 3)
    assert 0 < report.flicker < 0.6 * report.flicker_raw
    unsmoothed = convert(source, tmp_path / "out.mp4", half)
    assert unsmoothed.flicker == unsmoothed.flicker_raw > report.flicker


def test_without_libx264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(tmp_path / "a.mp4", pan(12))
    monkeypatch.setattr(video_out, "ENCODER", "h264")
    convert(source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == times(source)
    with pytest.raises(ValueError, match="97 x 63 pixels need a PyAV with libx264"):
        convert(film(tmp_path / "odd.mkv", pan(2, 97, 63), layout="yuv444p"), tmp_path / "odd.mp4")


MEMORY = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from launch.inference.video import stylize_video
from tests.memory import resident
stylize_video(Path(sys.argv[1]), Path(sys.argv[2]), lambda x: -x, smooth=0.5, progress=lambda done, total: None)
print(resident("VmHWM") / 2**20)
"""


@pytest.mark.proof
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    peaks = []
    for seconds in (1, 5):
        source = film(tmp_path / f"{seconds}.mp4", pan(24 * seconds, 320, 240), sound="aac", seconds=seconds)
        command = [sys.executable, "-c", MEMORY, str(source), str(tmp_path / "out.mp4")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    # The 96 frames between them are 88 MB as floats.
    assert peaks[1] - peaks[0] < 32, peaks


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_stops_it_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    source, out = film(tmp_path / "a.mp4", pan(60), sound="aac", seconds=2.5), tmp_path / "out.mp4"
    out.write_bytes(b"what was there before")
    seen: list[Path] = []

    def stops(picture: Tensor) -> Tensor:
        seen.extend(path for path in tmp_path.iterdir() if path.suffix == ".partial")
        if len(seen) == 50:
            raise error
        return picture

    with pytest.raises(error):
        convert(source, out, stops)
    assert len(seen) == 50
    assert out.read_bytes() == b"what was there before"
    assert sorted(tmp_path.iterdir()) == [source, out]


def test_a_video_may_take_its_own_place(tmp_path: Path) -> None:
    path = film(tmp_path / "a: b.mp4", pan(8))
    before = shown(path)[3].astype(np.int16)
    convert(path, path, lambda picture: -picture)
    assert np.abs(255 - before - shown(path)[3]).mean() < 6
