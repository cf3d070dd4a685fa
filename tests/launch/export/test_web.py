"""A run as a page: the folder that is written, what it refuses, and random numbers in the browser's language."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from datamodules.assets.fetching import find
from gesso.cli.main import main
from gesso.common.files import sha256
from gesso.common.randomness import mix_seed
from launch.checkpoints.export import export as export_weights
from launch.export import web
from launch.export.front import ExportOptions
from launch.export.web import FACTS, MODEL, PAGE, RUNTIMES, write_web
from lightning_modules.core.deployment import Layout
from lightning_modules.gan.biggan import truncated
from tests.launch.export.families import exported, tiny


def saved(name: str, folder: Path) -> Path:
    """A tiny family as a file of weights."""
    file = folder / f"{name}.safetensors"
    export_weights(tiny(name), file, origin={"images_seen": 12_500, "weights": "average"})
    return file


@pytest.mark.slow
@pytest.mark.network
def test_a_folder_holds_all_that_the_page_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = saved("FastStyle", tmp_path), tmp_path / "page"
    out.mkdir()
    (out / "CNAME").write_text("mine")
    assert main(["export", str(run), "--web", str(out), "--check", "3", "--licence", "CC0"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith(f"serve it: python -m http.server --bind 127.0.0.1 --directory {out} 8000")
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    runtime = {name: source for files in RUNTIMES.values() for source, name in files.values()}
    own = {file.name for file in PAGE.iterdir()}
    assert files == own | runtime.keys() | {FACTS, MODEL, "CNAME"}
    # The runtime is npm's, to the byte.
    sums = find("onnxruntime_web").files
    assert {name: sha256(out / name) for name in runtime} == {name: sums[source] for name, source in runtime.items()}
    facts = json.loads((out / FACTS).read_text())
    assert facts["model"] == {
        "file": MODEL,
        "bytes": (out / MODEL).stat().st_size,
        "sha256": sha256(out / MODEL),
    }
    assert facts["licence"] == "CC0"
    # Pictures of any size, with the noise as an input.
    assert {name: port["shape"] for name, port in facts["inputs"].items()} == {
        "content": [1, 3, None, None],
        "mix": [1, 2],
        "noise": [1, 1, None, None],
    }
    assert facts["inputs"]["mix"]["names"] == ["a", "b"]
    assert {one.name for one in onnxruntime.InferenceSession(out / MODEL).get_inputs()} == facts["inputs"].keys()
    # Once more into the same folder: it is its own page.
    assert web._is_page(out)
    web._check_place(out)


def test_the_page_names_no_other_place_and_every_file_of_its_own() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in PAGE.iterdir()}
    for name, text in texts.items():
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+|https?://[\w.-]+", text)
        assert set(found) <= {"http://localhost"}, name
        assert "eval(" not in text
    assert set(re.findall(r'(?:src|href)="([\w.]+)"', texts["index.html"])) == texts.keys() - {
        "index.html",
        "worker.js",
    }
    # What a script asks for by id is there.
    ids = set(re.findall(r'id="([\w-]+)"', texts["index.html"]))
    assert set(re.findall(r'\$\("([\w-]+)"\)', texts["page.js"])) <= ids


@pytest.mark.parametrize(
    ("family", "part", "message"),
    [
        ("EDM", None, "--web: an EDM's denoiser is one step of a sampler, and the page has no sampler; --onnx has it"),
        ("AutoencoderKL", None, "--web: an AutoencoderKL's decoder takes latents that another network makes; --part "),
        ("AutoencoderKL", "encoder", "--web: an AutoencoderKL's encoder makes no picture"),
        ("SwappingAutoencoder", None, "--web: a SwappingAutoencoder's styles are those of pictures, which the page "),
    ],
)
def test_what_a_page_cannot_run(family: str, part: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_web(str(saved(family, tmp_path)), tmp_path / "page", ExportOptions(part=part))
    assert not (tmp_path / "page").exists()


def test_another_page_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ValueError, match=r"its index\.html is of another page; name a folder without one"):
        write_web("nowhere", tmp_path, ExportOptions())
    with pytest.raises(ValueError, match="is a file; name the folder to write"):
        write_web("nowhere", tmp_path / "index.html", ExportOptions())


@pytest.mark.slow
def test_the_truncation_of_a_page_is_an_input(tmp_path: Path) -> None:
    # StyleGAN3 and StyleSwin share this code.
    module = tiny("StyleGAN2")
    figures = exported(module, "generator", replace(Layout(), truncation=True), tmp_path / "model.onnx", samples=3)
    assert figures.difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    latents = np.random.default_rng(0).standard_normal((1, module.latent_dim), dtype="float32")
    given: dict[str, Any] = {"latents": latents}
    if module.num_classes:
        given["labels"] = np.array([1])
    for psi in (1.0, 0.25):
        module.truncation_psi = psi  # type: ignore[assignment]
        labels = torch.tensor([1]) if module.num_classes else None
        expected = module.decode(torch.from_numpy(latents), labels)  # type: ignore[operator]
        (found,) = session.run(["picture"], given | {"truncation": np.array([psi], "float32")})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_random_numbers_are_torchs() -> None:
    program = (PAGE / "random.js").read_text(encoding="utf-8") + (
        "const made = [8, 16, 20, 128, 1001].map((count) => [...new Generator(mixSeed(7, count)).normals(count)]);"
        "const one = new Generator(5); made.push([...one.normals(3), ...one.normals(3), ...one.normals(32)]);"
        "const z = new Generator(0).normals(64);"
        "console.log(JSON.stringify({ made, seed: String(mixSeed(2 ** 32 - 1, 3)), z: [...truncated(z, 2)] }));"
    )
    made = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=True)
    found = json.loads(made.stdout)
    assert int(found["seed"]) == mix_seed(2**32 - 1, 3)
    generator = torch.Generator()
    expected = [
        torch.randn(count, generator=generator.manual_seed(mix_seed(7, count))) for count in (8, 16, 20, 128, 1001)
    ]
    generator.manual_seed(5)
    expected.append(torch.cat([torch.randn(count, generator=generator) for count in (3, 3, 32)]))
    for ours, theirs in zip(found["made"], expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)
    z = torch.randn(64, generator=generator.manual_seed(0))
    np.testing.assert_allclose(found["z"], truncated(z, 2.0).numpy(), atol=2e-6)
