"""Signed answers: who made them, of what; other answers stay as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gesso.cli.main import main
from launch.provenance import Verifier, make_test_certificate
from launch.serving.answers import Format, Origin, answered
from launch.serving.families import served_run
from launch.serving.signing import Signing
from tests.launch.serving.models import Counting, picture_bytes, pixels, served, serving, tiny_file


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    key, certificate, _ = make_test_certificate(tmp_path_factory.mktemp("keys"))
    return key, certificate


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_an_answer_says_what_made_it_and_of_what(format: Format, pem: tuple[Path, Path], tmp_path: Path) -> None:
    content, style = picture_bytes(), picture_bytes(seed=1)
    signing = Signing(*pem)
    origin = Origin("painter", "a painter", {"alpha": 0.5, "size": None}, (content, style))
    picture = pixels(content)
    data = answered(picture, format, origin, signing)
    file = tmp_path / f"made.{format}"
    file.write_bytes(data)
    verdict = Verifier().verify(file)
    assert verdict.state == "signed"
    assert verdict.facts["alpha"] == 0.5
    assert "size" not in verdict.facts
    assert verdict.facts["styles"] == [{"sha256": hashlib.sha256(style).hexdigest()}]
    assert "content" in verdict.words or b"parentOf" in data
    # A changed byte of the picture is seen.
    broken = bytearray(data)
    broken[len(broken) // 2] ^= 1
    file.write_bytes(bytes(broken))
    assert Verifier().verify(file).state in ("tampered", "unreadable")


def test_a_server_signs_with_the_facts_of_its_model(pem: tuple[Path, Path], tmp_path: Path) -> None:
    counting, signing = Counting(), Signing(*pem)
    object.__setattr__(counting.facts, "made_by", lambda: {"run": "numbers", "checkpoint_sha256": "ab" * 32})
    signing.know(counting)
    with serving([counting], seal=signing) as client:
        answer = client.post("/models/counting/generate", json={"seed": 7})
        assert answer.status_code == 200, answer.text
        assert "made_by" not in client.get("/models").text
    file = tmp_path / "seven.png"
    file.write_bytes(answer.content)
    verdict = Verifier().verify(file)
    assert (verdict.state, verdict.facts["run"], verdict.facts["seed"]) == ("signed", "numbers", 7)
    np.testing.assert_array_equal(pixels(answer.content), [[7]])


def test_weights_of_styles_do_not_stand_for_those_of_the_network(pem: tuple[Path, Path], tmp_path: Path) -> None:
    model, signing = served("FastStyle"), Signing(*pem)
    object.__setattr__(model.facts, "made_by", lambda: {"weights": "average"})
    signing.know(model)
    with serving([model], seal=signing) as client:
        path, sent = "/models/faststyle/stylize", {"content": picture_bytes()}
        answer = client.post(path, files=sent, data={"weights": [0.25, 0.75]})
    file = tmp_path / "made.png"
    file.write_bytes(answer.content)
    facts = Verifier().verify(file).facts
    assert (facts["weights"], facts["style_weights"]) == ("average", "0.25, 0.75")


def test_a_run_knows_where_it_comes_from(tmp_path: Path) -> None:
    file = tiny_file("DCGAN", tmp_path / "digits.safetensors")
    facts = served_run("dcgan", str(file), torch.device("cpu")).facts.made_by()
    assert facts["family"] == "DCGAN"
    assert facts["checkpoint_sha256"]


def test_a_key_that_is_not_there_is_known_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = str(tmp_path / "none.pem")
    assert main(["serve", "no-such-run", "--sign", key, key]) != 0
    assert "none.pem: no such" in capsys.readouterr().err
