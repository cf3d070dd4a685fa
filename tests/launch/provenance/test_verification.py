"""Verdicts: what was changed, taken off or found again."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch.provenance.signers import encoded, film, identity, pixels

pytest.importorskip("c2pa")

from launch.inference.pictures import save_picture
from launch.provenance.credentials import Parent, sign, sign_file
from launch.provenance.identity import make_test_certificate, read_anchors, read_identity
from launch.provenance.journal import NAME, Journal
from launch.provenance.publication import Publication
from launch.provenance.verification import Verifier, files_in
from launch.provenance.watermark import DwtDctSvd

#: Changed bytes of each format.
CHANGES = 100


def signed_file(format: str, folder: Path) -> Path:
    """A signed file of a format; its parent has credentials of its own, so that all of C2PA's boxes are in it."""
    signer = identity(folder / "keys")
    file = folder / f"signed.{format.lower()}"
    if format == "MP4":
        film(file)
        return sign_file(file, signer, {"run": "r"})
    parent = Parent("photograph.png", sign(encoded("PNG", seed=1), signer, {}))
    file.write_bytes(sign(encoded(format, side=64), signer, {"run": "r"}, parent=parent))
    return file


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "MP4"])
def test_any_changed_byte_is_detected(format: str, tmp_path: Path) -> None:
    file = signed_file(format, tmp_path)
    data = file.read_bytes()
    begin = data.index(b"jumb")
    end = begin + int.from_bytes(data[begin - 4 : begin], "big")
    rng = np.random.default_rng(0)
    # Half in the credentials, half in all else; and a name, the padding and a length, which no signature covers.
    outside = [*range(begin), *range(end, len(data))]
    weak = [data.rindex(b"c2pa.signature"), data.rindex(bytes(100)), data.index(b"c2pa\0") + 9, begin - 2]
    places = [*rng.integers(begin, end, CHANGES // 2), *rng.choice(outside, CHANGES // 2), *weak, 4, len(data) - 1]
    verifier, missed = Verifier(), []
    assert verifier.verify(file).state == "signed"
    changed = tmp_path / f"changed{file.suffix}"
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        changed.write_bytes(damaged)
        if verifier.verify(changed).state in ("signed", "trusted"):
            missed.append(int(place))
    assert missed == []


def test_who_signed_is_said_and_who_may_be_trusted(tmp_path: Path) -> None:
    key, certificate, root = make_test_certificate(tmp_path / "keys", "me\x1b[31m")
    file = tmp_path / "a.png"
    parent = Parent("photo\n.png", encoded("PNG"))
    file.write_bytes(sign(encoded("PNG"), read_identity(key, certificate), {"run": "r", "seed": 3}, parent=parent))
    line = Verifier().verify(file).line()
    assert line == (
        f"{file}: signed: by me?[31m, a test certificate that says nothing of who signed; edited by a model; run r; "
        "seed 3; of photo?.png"
    )
    assert Verifier(trust=read_anchors(root)).verify(file).state == "trusted"
    _, _, another = make_test_certificate(tmp_path / "others")
    assert Verifier(trust=read_anchors(another)).verify(file).state == "signed"


def test_what_lost_its_signature_is_found_by_its_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    publication = Publication({"run": "r", "seed": 7}, identity=identity(tmp_path / "keys"))
    for seed in range(8):
        save_picture(pixels(128, seed), folder / f"{seed}.png", finish=publication)
    saved_again = tmp_path / "again.jpg"
    Image.open(folder / "5.png").convert("RGB").resize((80, 80)).save(saved_again, quality=60)
    # Its own words, in EXIF, are gone as well.
    assert Image.open(saved_again).getexif().get(0x0131) is None
    other = tmp_path / "other.jpg"
    Image.fromarray(pixels(128, 99)).save(other)
    verifier = Verifier(journal=Journal(folder / NAME))
    found = verifier.verify(saved_again)
    assert found.state == "stripped"
    assert "the journal knows it as 5.png of r" in found.words
    assert verifier.verify(other).state == "unsigned"
    assert [verifier.verify(file).state for file in files_in(folder)] == ["signed"] * 8


def test_stripped_is_said_where_the_watermark_or_the_file_itself_tells(tmp_path: Path) -> None:
    marked = Publication({}, watermark=DwtDctSvd(), message=b"studio\0\0")
    file = save_picture(pixels(128), tmp_path / "a.png", finish=marked)
    shutil.copy(file, tmp_path / "b.png")
    assert "its watermark says studio" in Verifier().verify(tmp_path / "b.png").words
    own = save_picture(pixels(64), tmp_path / "own.png")
    verdict = Verifier().verify(own)
    assert verdict.state == "stripped"
    assert "gesso made it" in verdict.words
    foreign = tmp_path / "foreign.png"
    Image.fromarray(pixels(64)).save(foreign)
    assert Verifier().verify(foreign).state == "unsigned"


@pytest.mark.parametrize("name", ["empty.png", "text.png", "half.png", "noise.webp", "zeros.mp4", "head.jpg"])
def test_files_of_strangers_are_data(name: str, tmp_path: Path) -> None:
    content = {
        "empty.png": b"",
        "text.png": b"hello",
        "half.png": encoded("PNG", 64)[:300],
        "noise.webp": b"RIFF\x10\0\0\0WEBP" + np.random.default_rng(0).bytes(500),
        "zeros.mp4": b"\0\0\0\x20ftyp" + bytes(100),
        "head.jpg": b"\xff\xd8\xff\xeb\xff\xff" + bytes(20),
    }[name]
    file = tmp_path / name
    file.write_bytes(content)
    assert Verifier().verify(file).state in ("unreadable", "unsigned", "tampered")


def test_a_jpeg_with_credentials_of_several_segments(tmp_path: Path) -> None:
    signer = identity(tmp_path / "keys")
    parent = Parent("large.png", sign(encoded("PNG"), signer, {"words": "x" * 150_000}))
    file = tmp_path / "a.jpg"
    file.write_bytes(sign(encoded("JPEG"), signer, {}, parent=parent))
    assert Verifier().verify(file).state == "signed"
    data = bytearray(file.read_bytes())
    second = [place for place in range(len(data) - 8) if data[place : place + 4] == b"JP\x02\x11"][1]
    data[second + 7] ^= 1
    file.write_bytes(data)
    assert Verifier().verify(file).state == "tampered"
    with Image.open(io.BytesIO(data)) as image:
        image.load()
