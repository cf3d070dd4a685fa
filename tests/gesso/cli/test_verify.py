"""`gesso sign` and `gesso verify`: lines, exit codes, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("c2pa")

from gesso.cli.main import main
from launch.provenance.journal import NAME, enter


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["sign", "--make-test-certificate", str(tmp_path / "keys")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "keys" / name) for name in ("key.pem", "cert.pem", "root.pem")
    ]
    return tmp_path / "keys"


def picture(file: Path, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    return file


def test_from_a_key_to_a_verdict(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["--sign", str(keys / "key.pem"), str(keys / "cert.pem")]
    files = [picture(tmp_path / "a.png", 1), picture(tmp_path / "b.jpg", 2)]
    out = tmp_path / "signed"
    assert main(["sign", *map(str, files), *pair, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[str(out / name), "signed"] for name in ("a.png", "b.jpg")]
    assert "a test certificate" in lines[0]
    assert main(["verify", str(out), "--trust", str(keys / "root.pem")]) == 0
    assert main(["sign", "--make-test-certificate", str(tmp_path / "others")]) == 0
    assert main(["verify", str(out), "--trust", str(tmp_path / "others" / "root.pem")]) == 1
    data = bytearray((out / "a.png").read_bytes())
    data[-20] ^= 1
    (out / "a.png").write_bytes(data)
    picture(out / "c.png", 3)
    (out / "d.png").write_text("no picture")
    capsys.readouterr()
    assert main(["verify", str(out)]) == 1
    states = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["tampered", "signed", "unsigned", "unreadable"]
    # A journal beside the files is taken by itself, and one that knows nothing changes nothing.
    (out / NAME).touch()
    assert main(["verify", str(out / "b.jpg")]) == 0


def test_journals_in_folders_of_a_folder_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # As `gesso stylize FOLDER --sign` leaves them: each beside its pictures.
    file = tmp_path / "made" / "inner" / "a.png"
    file.parent.mkdir(parents=True)
    waves = np.sin(np.arange(64) / 5)[:, None] * np.cos(np.arange(64) / 9)[None]
    noise = np.random.default_rng(0).normal(0, 0.1, (64, 64))
    image = np.repeat(((waves + noise).clip(-1, 1) * 127 + 128).astype(np.uint8)[..., None], 3, 2)
    Image.fromarray(image).save(file)
    enter(file.parent / NAME, file, image, {"run": "painter"})
    assert main(["verify", str(tmp_path / "made")]) == 1
    assert "stripped: without credentials, but the journal knows it as a.png of painter" in capsys.readouterr().out


@pytest.mark.slow
def test_refusals_are_one_line(keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(picture(tmp_path / "a.png"))
    key, certificate = str(keys / "key.pem"), str(keys / "cert.pem")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    out = ["--out", str(tmp_path / "out")]
    for command, says in (
        (["sign"], "nothing to sign"),
        (["sign", file], "no key: name it and its certificate with --sign"),
        (["sign", file, "--sign", key, certificate], "no folder for the signed files"),
        (["sign", file, "--sign", key, str(tmp_path / "none.pem"), *out], "none.pem: no such certificate"),
        (["sign", file, "--sign", key, str(keys / "root.pem"), *out], "key.pem is not the key of"),
        (["sign", file, "--sign", key, certificate, "--out", str(tmp_path)], "gesso has not made it"),
        (["sign", file, file, "--sign", key, certificate, *out], "in the place of another"),
        (["sign", str(tmp_path / "text.png"), "--sign", key, certificate, *out], "text.png: is no PNG"),
        (["sign", "--make-test-certificate", str(keys)], "key.pem: is there already"),
        (["verify", str(tmp_path / "none.png")], "none.png: no such file"),
        (["verify", str(tmp_path / "empty")], "empty: no picture here"),
        (["verify", str(tmp_path / "text.png")], "text.png: not a picture that can be read"),
        (["verify", file, "--journal", str(tmp_path / "none.jsonl")], "none.jsonl: no such journal"),
        (["verify", file, "--trust", file], "a.png: no certificate in PEM"),
        (["generate", "RUN", "--sign", key, certificate, "--grid", "a.gif"], "a.gif: credentials are written into"),
        (["generate", "RUN", "--sign", key, str(keys / "none.pem")], "none.pem: no such certificate"),
        (["generate", "RUN", "--watermark", "much too long"], "--watermark 'much too long': give 1 to 8 bytes"),
    ):
        assert main(command) == 2, command
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
