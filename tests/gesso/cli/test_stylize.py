"""`gesso stylize`: pictures and folders of them, and everything that is no picture."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from gesso.cli.main import main
from gesso.common.pixels import to_uint8
from launch.inference import stylization
from lightning_modules.kinds.stylizer import Style
from tests.launch.inference.films import film, pan, shown
from tests.pictures import paintings, photographs


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph, two paintings, and a folder of photographs with a broken one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album").mkdir()
    for number, image in enumerate(to_uint8(photographs(72))):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "album" / f"{number}.png")
    Image.open("album/0.png").save("photo.png")
    for name, image in zip(("one", "two"), to_uint8(paintings(72)), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{name}.png")
    return tmp_path


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name).convert("RGB"), np.int16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--run", "none", "--preserve-color"], "--preserve-color match recolours style pictures, and there are none"),
        (["--run", "none", "--style-size", "64"], "--style-size is of style pictures: name them with --style"),
        (
            ["--style", "one.png", "--method", "gatys", "--style-size", "64"],
            "gatys brings styles to the content's size",
        ),
    ],
)
def test_what_a_method_would_not_heed_is_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Before anything is read.
    assert main(["stylize", "none.png", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.network
def test_a_picture(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stylize", "photo.png", "--style", "one.png"]) == 0
    assert capsys.readouterr().out == "photo-stylized.png\n"
    made = pixels("photo-stylized.png")
    assert made.shape == (72, 72, 3)
    assert np.abs(made - pixels("photo.png")).mean() > 10
    assert main(["stylize", "photo.png", "--style", "one.png", "two.png", "--weights", "1", "0", "--out", "b.png"]) == 0
    assert np.abs(made - pixels("b.png")).max() <= 1
    assert sorted(path.name for path in gallery.glob("*.png")) == [
        "b.png",
        "one.png",
        "photo-stylized.png",
        "photo.png",
        "two.png",
    ]


@pytest.mark.network
def test_size_and_colours(gallery: Path) -> None:
    Image.open("photo.png").crop((0, 0, 72, 50)).save("wide.png")
    for color in ("match", "luminance"):
        command = ["stylize", "wide.png", "--style", "one.png", "--size", "96", "--preserve-color", color]
        assert main([*command, "--out", f"{color}.png"]) == 0
        made = pixels(f"{color}.png")
        assert made.shape == (67, 96, 3)
        # The photograph's mean colour, nearer than without.
        assert main([*command[:6], "--out", "free.png"]) == 0
        mean = pixels("wide.png").mean((0, 1))
        assert np.abs(made.mean((0, 1)) - mean).sum() < np.abs(pixels("free.png").mean((0, 1)) - mean).sum()


@pytest.mark.network
def test_a_folder_goes_on_past_a_broken_file(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gallery / "album" / "1.jpg").write_bytes((gallery / "album" / "1.png").read_bytes()[:300])
    (gallery / "album" / "notes.txt").write_text("no picture, and not taken for one")
    assert main(["stylize", "album", "--style", "one.png"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gesso: album/1.jpg: not a picture that can be read (truncated")
    assert sorted(path.name for path in (gallery / "album-stylized").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.network
def test_a_turned_photograph_comes_out_upright(gallery: Path) -> None:
    tall = Image.open("photo.png").crop((0, 0, 40, 72))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the file lies on its side
    tall.transpose(Image.Transpose.ROTATE_90).save("turned.jpg", exif=exif, quality=95)
    assert main(["stylize", "turned.jpg", "--style", "one.png"]) == 0
    assert pixels("turned-stylized.png").shape == (72, 40, 3)


@pytest.mark.network
@pytest.mark.parametrize("size", [(1, 1), (30_000, 3)])
def test_odd_sizes(gallery: Path, size: tuple[int, int]) -> None:
    Image.open("photo.png").resize(size).save("odd.png")
    assert main(["stylize", "odd.png", "--style", "one.png"]) == 0
    assert Image.open("odd-stylized.png").size == size


@pytest.mark.network
def test_gatys(gallery: Path) -> None:
    command = ["stylize", "photo.png", "--style", "one.png", "--method", "gatys", "--steps", "2", "--size", "40"]
    assert main(command) == 0
    assert pixels("photo-stylized.png").shape == (40, 40, 3)


@pytest.mark.network
def test_tiles_give_the_same_picture(gallery: Path) -> None:
    command = ["stylize", "photo.png", "--style", "one.png", "--size", "160"]
    assert main([*command, "--out", "whole.png"]) == 0
    assert main([*command, "--tile", "80", "--out", "tiles.png"]) == 0
    assert np.abs(pixels("whole.png") - pixels("tiles.png")).max() <= 1


@pytest.mark.network
def test_a_video(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import av

    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 72, 48, "yuv420p"
        for shift in range(6):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels("photo.png")[:48], shift, 1).astype(np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert main(["stylize", "clip.mp4", "--style", "one.png"]) == 0
    said = capsys.readouterr()
    assert said.out == "clip-stylized.mp4\n"
    assert "6 frames, 0.6 s; flicker" in said.err
    assert "less than without" in said.err
    assert main(["stylize", "clip.mp4", "--style", "one.png", "--size", "36"]) == 0  # an earlier result
    assert main(["stylize", "clip.mp4", "--style", "one.png", "--out", "other.mp4"]) == 0
    capsys.readouterr()
    assert main(["stylize", "clip-stylized.mp4", "--style", "one.png", "--out", "clip.mp4"]) == 2
    assert "clip.mp4: is there already, and gesso has not made it" in capsys.readouterr().err
    with av.open("other.mp4") as container:
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(72, 48)] * 6


class Negative:
    """A method without weights; Ctrl-C is pressed while it works on the frame of this number."""

    def __init__(self, pressed: int = 0) -> None:
        self.seen, self.pressed = 0, pressed

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        self.seen += 1
        if self.seen == self.pressed:
            os.kill(os.getpid(), signal.SIGINT)
        return -content


@pytest.mark.network
def test_a_clip_for_a_camera(
    gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, live = film(gallery / "clip.mp4", pan(12)), ["stylize", "clip.mp4", "--style", "one.png", "--live"]
    monkeypatch.setattr(stylization, "stylizer", lambda *_, **__: Negative())
    assert main([*live, "--live-rate", "0", "--out", "live.mp4", "--size", "48"]) == 0
    said = capsys.readouterr()
    assert said.out == "live.mp4\n"
    assert re.search(r"^12 frames in .* s: .* frames/s, .* ms a frame, 0 dropped, shown .* ms after it came$", said.err)
    assert [picture.shape for picture in shown(gallery / "live.mp4")] == [(32, 48, 3)] * 12
    # To look at, when nothing is to be written.
    assert main([*live, "--live-rate", "100"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "to look at, in a browser: http://127.0.0.1:" in said.err
    # Ctrl-C is how a camera's recording ends.
    monkeypatch.setattr(stylization, "stylizer", lambda *_, **__: Negative(pressed=4))
    assert main([*live, "--live-rate", "0", "--out", "live.mp4"]) == 0
    assert capsys.readouterr().out == "live.mp4\n"
    assert len(shown(gallery / "live.mp4")) == 4
    # A clip that breaks off costs nothing of what came before.
    monkeypatch.setattr(stylization, "stylizer", lambda *_, **__: Negative())
    film(clip, pan(48), options={"movflags": "+faststart"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert main([*live, "--live-rate", "0", "--out", "live.mp4"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    kept = len(shown(gallery / "live.mp4"))
    assert line.startswith("gesso: clip.mp4: not a video that can be read (")
    assert line.endswith(f"; the {kept} frames before are in live.mp4")


LIVE = {
    "no such camera": (["97"], "camera 97: no camera there, or it is in use"),
    "no such device": (["/dev/video97"], "/dev/video97: no camera there"),
    "no such clip": (["nowhere.mp4", "--live"], "nowhere.mp4: no such video"),
    "folder": (["album", "--live"], "album: a folder is no camera"),
    "picture": (["photo.png", "--live"], "photo.png: a picture is no camera"),
    "gatys": (["97", "--method", "gatys"], "gatys takes minutes a picture"),
    "rate": (["97", "--live-rate", "-1"], "--live-rate is -1"),
    "port": (["97", "--live-port", "70000"], "--live-port is 70000"),
    "smooth": (["97", "--smooth", "1"], "--smooth is 1"),
    "not live": (["photo.png", "--live-rate", "1"], "--live-rate is for a camera"),
    "not ours": (["97", "--out", "theirs.mp4"], "theirs.mp4: is there already, and gesso has not made it"),
    "no MP4": (["97", "--out", "a.avi"], "a.avi: videos are written as MP4"),
}


@pytest.mark.network
@pytest.mark.parametrize("name", LIVE)
def test_bad_cameras_end_in_one_line(name: str, gallery: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, says = LIVE[name]
    (gallery / "theirs.mp4").write_text("not ours")
    before = sorted(gallery.rglob("*"))
    assert main(["stylize", *arguments, "--style", "one.png"]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert says in line
    assert sorted(gallery.rglob("*")) == before


BAD = {
    "no such picture": (["nowhere.png", "--style", "one.png"], "nowhere.png: no such picture"),
    "no such style": (["photo.png", "--style", "nowhere.png"], "nowhere.png: no such picture"),
    "empty file": (["empty.png", "--style", "one.png"], "empty.png: not a picture"),
    "text": (["text.png", "--style", "one.png"], "text.png: not a picture"),
    "empty folder": (["empty", "--style", "one.png"], "empty: no picture here"),
    "mask of another size": (["photo.png", "--style", "one.png", "--mask", "mask.png"], "mask.png: 9 x 5 pixels"),
    "too few masks": (["photo.png", "--style", "one.png", "two.png", "--mask", "photo.png"], "1 masks"),
    "too many weights": (["photo.png", "--style", "one.png", "--weights", "1", "2"], "2 weights for 1 styles"),
    "alpha": (["photo.png", "--style", "one.png", "--alpha", "2"], "alpha is 2"),
    "tile": (["photo.png", "--style", "one.png", "--tile", "-1"], "tile is -1"),
    "no style": (["photo.png"], "no style: name one picture"),
    "text for a video": (["text.mp4", "--style", "one.png"], "text.mp4: not a video"),
    "empty video": (["empty.mp4", "--style", "one.png"], "empty.mp4: not a video"),
    "no such video": (["nowhere.mp4", "--style", "one.png"], "nowhere.mp4"),
    "steps": (["photo.png", "--style", "one.png", "--steps", "9"], "--steps is for --method gatys"),
    "seed": (["photo.png", "--style", "one.png", "--seed", "9"], "--seed is for --method gatys"),
    "smooth": (["photo.png", "--style", "one.png", "--smooth", "0.5"], "--smooth is for videos, and photo.png is none"),
    "size": (["photo.png", "--style", "one.png", "--size", "0"], "--size"),
}


@pytest.mark.network
@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line(name: str, gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, says = BAD[name]
    (gallery / "empty.png").touch()
    (gallery / "empty.mp4").touch()
    (gallery / "text.png").write_text("not a picture at all")
    (gallery / "text.mp4").write_text("not a video at all")
    (gallery / "empty").mkdir()
    Image.new("L", (9, 5)).save("mask.png")
    before = sorted(gallery.rglob("*"))
    assert main(["stylize", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert sorted(gallery.rglob("*")) == before
