"""Videos written: H.264 in MP4, with the sound and the timestamps of the video that they were made from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor

from gesso.common.extras import needing
from gesso.common.files import partial_path
from gesso.common.pixels import to_uint8
from launch.inference.pictures import MAKER, Finish
from launch.inference.video_in import SCALING, Frame

with needing("video"):
    import av
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.reformatter import ColorRange, Colorspace

#: Codecs of sound that players find in an MP4; anything else becomes AAC.
COPIED_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"}
AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000}
AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
#: Whatever else this FFmpeg has for H.264, should it have been built without libx264.
ENCODER = "libx264" if "libx264" in av.codecs_available else "h264"
#: The index comes first, as the web wants it; offsets between tracks are kept to more than the usual millisecond.
MP4 = {"movflags": "+faststart", "movie_timescale": "90000"}
#: H.264's quality: 18 is said to be hard to tell from the original.
CRF = 18


def is_ours(path: Path) -> bool:
    """Whether ``VideoWriter`` has written this file."""
    try:
        with av.open(f"file:{path}") as container:
            return container.metadata.get("comment") == MAKER
    except (av.FFmpegError, OSError):
        return False


def check_name(path: Path) -> Path:
    """Raises a ValueError when the name is no MP4's; gives ``path`` back."""
    if path.suffix.lower() not in (".mp4", ".m4v"):
        raise ValueError(f"{path}: videos are written as MP4: end the name in .mp4")
    return path


class Origin(Protocol):
    """What a video is made from, as far as the result takes after it: see ``VideoReader``."""

    fps: Fraction
    time_base: Fraction
    #: When it begins, in seconds.
    start: Fraction
    pixel_aspect: Fraction
    primaries: int
    transfer: int

    @property
    def sounds(self) -> Sequence[AudioStream]: ...


class VideoWriter:
    """Writes H.264 in MP4 under a temporary name, and renames it at the end.

    An exception leaves an earlier file, and so does an end before the first picture.

    Sides of odd length cannot be halved as 4:2:0 demands: such videos are 4:4:4, at their full size (VLC, mpv and
    Chrome show them; some telephones do not). The pixels' shape and the names of primaries and transfer curve go from
    the source to the result; the matrix is BT.709, of limited range.

    Args:
        out: an .mp4 file; its folder is made.
        source: whose timestamps and sound these are.
        preset: x264's, between time and size.
        finish: what else becomes of the frames and the file, see ``launch.inference.pictures.save_frames``.

    Raises:
        ValueError: ``out`` is no name of an MP4.
        OSError: it cannot be written.
    """

    def __init__(self, out: Path, source: Origin, *, preset: str = "medium", finish: Finish | None = None) -> None:
        self.out = check_name(out)
        self.source, self.preset, self.finish = source, preset, finish
        self.partial = partial_path(out)
        self.tracks: dict[int, tuple[Any, bool]] = {}
        self.dropped: list[str] = []
        with self._writing():
            out.parent.mkdir(parents=True, exist_ok=True)
            self.container = av.open(f"file:{self.partial}", "w", format="mp4", options=MP4)
            self.container.metadata["comment"] = MAKER
        self.video: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self.video is not None:
                self._finish()
        finally:
            # A trailer that cannot be written either says nothing new.
            with contextlib.suppress(av.FFmpegError):
                self.container.close()
            self.partial.unlink(missing_ok=True)

    def write(self, frame: Frame, picture: Tensor) -> None:
        """``picture`` [1, 3, H, W] in [-1, 1] at the time of ``frame``; the first decides the size of all."""
        pixels = to_uint8(picture)[0].permute(1, 2, 0).contiguous().cpu().numpy()
        if self.finish is not None:
            pixels = self.finish.mark(pixels)
        if self.video is None:
            with self._writing():
                self._start(pixels.shape[1], pixels.shape[0])
        coded = av.VideoFrame.from_ndarray(pixels).reformat(
            format=self.video.pix_fmt,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
        )
        coded.pts, coded.time_base, coded.duration = frame.pts, self.source.time_base, frame.duration
        with self._writing():
            self.container.mux(self.video.encode(coded))

    def sound(self, packet: Packet[Any]) -> None:
        """A packet of one of the source's tracks; after the first picture."""
        track, copied = self.tracks.get(packet.stream.index, (None, True))
        if track is None:
            return
        assert packet.time_base is not None
        offset = round(self.source.start / packet.time_base)
        if copied:
            if packet.size and packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, track
                with self._writing():
                    self.container.mux(packet)
            return
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts -= offset
            with self._writing():
                self.container.mux(track.encode(frame))

    def _start(self, width: int, height: int) -> None:
        odd = width % 2 or height % 2
        if odd and ENCODER != "libx264":
            raise ValueError(f"{self.out}: {width} x {height} pixels need a PyAV with libx264: make both sides even")
        self.video = self.container.add_stream(ENCODER, rate=self.source.fps, width=width, height=height)
        if ENCODER == "libx264":
            self.video.options = {"crf": str(CRF), "preset": self.preset}
        else:
            self.video.bit_rate = round(width * height * self.source.fps / 5)
        self.video.pix_fmt = "yuv444p" if odd else "yuv420p"
        codec = self.video.codec_context
        codec.time_base, codec.sample_aspect_ratio = self.source.time_base, self.source.pixel_aspect
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = self.source.primaries, self.source.transfer
        for stream in self.source.sounds:
            self._add_sound(stream)

    def _add_sound(self, stream: AudioStream) -> None:
        codec = stream.codec_context
        if codec is None:
            self.dropped.append(f"sound track {stream.index}: a codec that FFmpeg does not know")
        elif codec.codec.canonical_name in COPIED_SOUND:
            self.tracks[stream.index] = (self.container.add_stream_from_template(stream), True)
        else:
            track = self.container.add_stream(
                "aac", rate=codec.sample_rate if codec.sample_rate in AAC_RATES else 48000
            )
            track.layout = AAC_LAYOUTS.get(codec.channels, "stereo")
            track.bit_rate = 96_000 * len(track.layout.channels)
            self.tracks[stream.index] = (track, False)
        if stream.index in self.tracks and (language := stream.metadata.get("language")):
            self.tracks[stream.index][0].metadata["language"] = language

    def _finish(self) -> None:
        with self._writing():
            for track in (self.video, *(track for track, copied in self.tracks.values() if not copied)):
                self.container.mux(track.encode(None))
            self.container.close()
            if self.finish is not None:
                self.finish.seal(self.partial, self.out.name)
            self.partial.replace(self.out)
        if self.finish is not None:
            self.finish.enter(self.out, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"{self.out}: cannot be written ({reason})") from error
