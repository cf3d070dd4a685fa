"""The page in a real browser: a photograph becomes a picture, and seeds become samples, as they do outside of it."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from gesso.common.pixels import to_uint8
from launch.checkpoints.export import export as export_weights
from launch.export.front import ExportOptions
from launch.export.web import MODEL, write_web
from tests.launch.export.families import tiny

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.process]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder; gives its address."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of a light FastStyle with two styles and of a DCGAN of three classes, both with random weights."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("FastStyle", "DCGAN"):
        file = folder / f"{name}.safetensors"
        export_weights(tiny(name), file, origin={"images_seen": 1000, "weights": "average"})
        write_web(str(file), folder / name, ExportOptions(check=1))
    return folder


def loaded(browser: Any, url: str) -> Any:
    """The page, loaded, and from then on without a network."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.locator("#status", has_text="Ready").wait_for()
    assert [one for one in asked if not one.startswith(url)] == []
    page.context.set_offline(True)
    return page


def downloaded(page: Any, file: Path) -> np.ndarray:
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(file)
    return np.asarray(Image.open(file).convert("RGB"))


def test_a_photograph_is_painted_as_onnxruntime_paints_it(browser: Any, pages: Path, tmp_path: Path) -> None:
    from skimage import data

    photograph = Image.fromarray(data.astronaut()).resize((256, 192), Image.Resampling.LANCZOS)
    photograph.save(tmp_path / "astronaut.png")
    with served(pages / "FastStyle") as url:
        page = loaded(browser, url)
        page.set_input_files("#photo", tmp_path / "astronaut.png")
        page.locator("#mix-0").fill("0.25")
        page.locator("#mix-1").fill("0.75")
        page.click("#go")
        page.locator("#status", has_text="256 × 192 px in").wait_for()
        found = downloaded(page, tmp_path / "painted.png")
        page.locator("#alpha").fill("0")
        page.click("#go")
        page.locator("#status", has_text="256 × 192 px in").wait_for()
        unpainted = downloaded(page, tmp_path / "unpainted.png")
        page.close()
    content = (np.asarray(photograph, np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    noise = torch.randn(1, 1, 192, 256, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(pages / "FastStyle" / MODEL)
    given = {"content": content, "mix": np.array([[0.25, 0.75]], "float32"), "noise": noise.numpy()}
    (picture,) = session.run(["picture"], given)
    expected = to_uint8(torch.from_numpy(picture[0])).permute(1, 2, 0).numpy()
    assert found.shape == expected.shape
    assert (abs(found.astype(int) - expected) <= 1).mean() >= 0.99
    assert (abs(found.astype(int) - np.asarray(photograph)) > 8).mean() > 0.5
    # No strength at all: the photograph.
    assert np.array_equal(unpainted, np.asarray(photograph))


def test_seeds_are_gessos(browser: Any, pages: Path, tmp_path: Path) -> None:
    with served(pages / "DCGAN") as url:
        page = loaded(browser, url)
        page.fill("#seed", "7")
        page.fill("#count", "4")
        page.click("#go")
        page.locator("#status", has_text="4 pictures in").wait_for()
        found = downloaded(page, tmp_path / "sheet.png")
        page.select_option("#class", "2")
        page.click("#go")
        page.locator("#status", has_text="picture 1 of 4").or_(page.locator("#download:visible")).first.wait_for()
        page.locator("#status", has_text="4 pictures in").wait_for()
        second = downloaded(page, tmp_path / "second.png")
        page.close()
    module = tiny("DCGAN")
    for sheet, labels in ((found, None), (second, torch.tensor([2, 2, 2, 2]))):
        images = to_uint8(module.generate(torch.arange(4), seed=7, labels=labels))[:, 0].numpy()
        expected = np.block([[images[0], images[1]], [images[2], images[3]]])
        assert sheet.shape == (64, 64, 3)
        assert (abs(sheet[..., 0].astype(int) - expected) <= 1).mean() >= 0.99
