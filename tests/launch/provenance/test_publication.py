"""Pictures on their way into files: what is written into them, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.launch.provenance.signers import film, identity, pixels

pytest.importorskip("c2pa")

from launch.checkpoints import layout
from launch.inference.animations import convert_file
from launch.inference.pictures import is_ours, save_frames, save_picture
from launch.provenance.publication import Publication, facts_of
from launch.provenance.verification import Verifier
from launch.provenance.watermark import DwtDctSvd
from launch.publishing.licences import licence_of, style_facts


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "noending"])
def test_a_picture_is_marked_signed_and_entered(name: str, tmp_path: Path) -> None:
    signer = identity(tmp_path / "keys")
    finish = Publication({"run": "r"}, signer, tmp_path / "j", DwtDctSvd(), b"studio\0\0")
    file = save_picture(pixels(256), tmp_path / name, finish=finish)
    verdict = Verifier().verify(file)
    assert verdict.state == "signed"
    assert verdict.facts == {"run": "r", "watermark": {"method": "dwtDctSvd", "message": "studio"}}
    assert DwtDctSvd().extract(np.asarray(Image.open(file))) == b"studio\0\0"
    # It may take the place of itself.
    assert is_ours(file)
    save_picture(pixels(256), file, finish=finish)
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert [line["file"] for line in lines] == [name, name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "j", "keys"])


def test_a_watermark_that_does_not_hold_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Publication({}, watermark=DwtDctSvd(), message=b"studio\0\0")
    picture = pixels(70)[:, :64]
    finish.mark(picture)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(DwtDctSvd, "extract", lambda self, image: None)
    finish.mark(picture)
    assert "a picture of 64 x 70 pixels does not hold its watermark" in capsys.readouterr().err


def test_what_is_made_of_a_photograph_has_it_as_its_parent(tmp_path: Path) -> None:
    photograph = tmp_path / "photograph.jpg"
    Image.fromarray(pixels(64)).save(photograph)
    finish = Publication({"method": "none"}, identity(tmp_path / "keys"))
    made = convert_file(photograph, tmp_path / "made.png", lambda picture: -picture, finish=finish)
    verdict = Verifier().verify(made)
    assert "edited by a model" in verdict.words
    assert verdict.words.endswith("of photograph.jpg")
    assert finish.source is None


def test_animations_are_signed_and_formats_without_credentials_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    finish = Publication({}, identity(tmp_path / "keys"))
    frames = [pixels(64, seed) for seed in range(2)]
    assert Verifier().verify(save_frames(frames, tmp_path / "a.webp", [100, 100], finish=finish)).state == "signed"
    for name in ("a.gif", "a.bmp", "a.tif"):
        with pytest.raises(ValueError, match=rf"{name}: credentials are written into .png, "):
            save_picture(frames[0], tmp_path / name, finish=finish)
        assert not (tmp_path / name).exists()


def test_a_video_is_signed_and_keeps_its_source_as_the_parent(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from launch.inference.video import stylize_video

    film(tmp_path / "film.mp4")
    finish = Publication({"run": "r"}, identity(tmp_path / "keys"))
    out = tmp_path / "made.mp4"
    stylize_video(tmp_path / "film.mp4", out, torch.neg, smooth=0, progress=lambda *_: None, finish=finish)
    verdict = Verifier().verify(out)
    assert verdict.state == "signed"
    assert verdict.words.endswith("edited by a model; run r; of film.mp4")
    (line,) = (tmp_path / "fingerprints.jsonl").read_text().splitlines()
    assert "pdq" not in json.loads(line)


def test_licences_of_styles_where_they_are_known(tmp_path: Path) -> None:
    names = ("reuse.png", "exif.jpg", "none.png", "none.txt")
    for name in names[:3]:
        exif = Image.Exif()
        if name == "exif.jpg":
            exif[0x8298] = "(c) 1890 V. van Gogh"
        Image.fromarray(pixels(8)).save(tmp_path / name, exif=exif)
    (tmp_path / "reuse.png.license").write_text("SPDX-FileCopyrightText: x\nSPDX-License-Identifier: CC-BY-4.0\n")
    (tmp_path / "none.txt").write_text("no picture")
    found = [licence_of(tmp_path / name) for name in names]
    assert found == ["CC-BY-4.0", "(c) 1890 V. van Gogh", None, None]
    (style,) = style_facts([tmp_path / "reuse.png"]) or []
    assert (style["name"], style["licence"], len(style["sha256"])) == ("reuse.png", "CC-BY-4.0", 64)
    assert style_facts([]) is None


def test_the_facts_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    checkpoint = run / "checkpoints" / "000000001000"
    layout.write(checkpoint, {"images_seen": 1000})
    (run / "run.json").write_text('{"identity": "abc"}')
    origin = {"path": str(checkpoint), "images_seen": 1000, "average": True}
    facts = facts_of(origin, "DCGAN", seed=3, label=None)
    total = facts.pop("checkpoint_sha256")
    assert facts == {
        "run": "mine",
        "run_identity": "abc",
        "kimg": 1.0,
        "weights": "average",
        "family": "DCGAN",
        "seed": 3,
    }
    layout.write(checkpoint, {"images_seen": 1001})
    assert facts_of(origin, "DCGAN")["checkpoint_sha256"] != total
