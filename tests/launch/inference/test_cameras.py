"""What stands for a camera: devices, clips, pipes; and what does not."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from gesso.common.pixels import to_uint8
from launch.inference.cameras import TICK, Camera, Shot, open_source
from tests.launch.inference.films import film, pan, shown


def pixels(shot: Shot) -> np.ndarray:
    return to_uint8(shot.picture())[0].permute(1, 2, 0).numpy().astype(np.int16)


def test_a_camera_gives_upright_rgb_until_it_is_unplugged(tmp_path: Path) -> None:
    # OpenCV opens a clip as it does a camera.
    clip = film(tmp_path / "a.mp4", pan(5))
    camera = Camera(str(clip), "camera 7")
    coming = camera.shots()
    shots = list(islice(coming, 5))
    with pytest.raises(ValueError, match=r"^camera 7: it gives no more pictures$"):
        next(coming)
    camera.close()
    assert camera.fps == 24
    for shot, known in zip(shots, shown(clip), strict=True):
        assert np.abs(pixels(shot) - known).mean() < 4
    # Times at which they came, no two alike.
    assert all(a.pts < b.pts for a, b in pairwise(shots))
    assert shots[0].duration == round(1 / (24 * TICK))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("97", "camera 97: no camera there, or it is in use"),
        ("/dev/video97", "/dev/video97: no camera there"),
        ("http://127.0.0.1:9/none", "http://127.0.0.1:9/none: no stream that can be opened"),
        ("nowhere.mp4", "nowhere.mp4: no such video"),
    ],
)
def test_a_camera_that_is_not_there(name: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match=says):
        open_source(name)
    # OpenCV's own lines stay away.
    assert capfd.readouterr() == ("", "")


def test_folders_and_pictures_are_no_cameras(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    for name, says in ((str(tmp_path), "a folder is no camera"), (str(tmp_path / "photo.png"), "a picture is no cam")):
        with pytest.raises(ValueError, match=says):
            open_source(name)


def test_a_rate_of_ones_own(tmp_path: Path) -> None:
    clip = open_source(str(film(tmp_path / "a.mp4", pan(4), times=[3, 4, 9, 20])))
    assert [shot.pts * TICK for shot in clip.shots()] == [Fraction(n, 24) for n in (0, 1, 6, 17)]
    clip = open_source(str(tmp_path / "a.mp4"), rate=50)
    assert clip.fps == 50
    assert [(shot.pts * TICK, shot.duration * TICK) for shot in clip.shots()] == [
        (Fraction(n, 50), Fraction(1, 50)) for n in range(4)
    ]


def test_a_pipe(tmp_path: Path) -> None:
    video, pipe = film(tmp_path / "a.ts", pan(9)), tmp_path / "pipe"
    os.mkfifo(pipe)
    sender = threading.Thread(target=lambda: pipe.write_bytes(video.read_bytes()))
    sender.start()
    clip = open_source(str(pipe))
    assert clip.paced
    assert len(list(clip.shots())) == 9
    clip.close()
    sender.join()
