"""`gesso export`: what goes into the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from gesso.cli.main import main
from tests.launch.serving.models import tiny_file


def test_weights_for_gesso_carry_their_licence(tmp_path: Path) -> None:
    source, out = tiny_file("DCGAN", tmp_path / "run.safetensors"), tmp_path / "out.safetensors"
    assert main(["export", str(source), "--safetensors", str(out), "--licence", "CC-BY-4.0"]) == 0
    with safe_open(out, framework="pt") as opened:
        assert opened.metadata()["licence"] == "CC-BY-4.0"
    again = tmp_path / "again.safetensors"
    assert main(["checkpoint", "export", str(source), str(again)]) == 0
    with safe_open(again, framework="pt") as opened:
        assert "licence" not in opened.metadata()


@pytest.mark.parametrize("option", [["--part", "generator"], ["--dynamic"], ["--size", "64"]])
def test_what_weights_alone_do_not_heed_is_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tiny_file("DCGAN", tmp_path / "run.safetensors"), tmp_path / "out.safetensors"
    assert main(["export", str(source), "--safetensors", str(out), *option]) == 2
    assert f"{option[0]} is of a network that is written: name a file with --onnx" in capsys.readouterr().err
    assert not out.exists()
