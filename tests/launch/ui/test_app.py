"""The pages of `gesso ui` as a browser asks for them."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from gesso.cli.main import main
from launch.ui.app import Act, Shelf, make_app
from launch.ui.samples import Sampler, Wanted
from tests.launch.report.finished import finished_run, write_metrics
from tests.launch.tiny_fit import TINY

TOKEN = "a token"


def client_of(*folders: Path, act: Act | None = None) -> TestClient:
    app = make_app(Shelf(folders, act, Sampler("cpu")), TOKEN)
    return TestClient(app, "http://localhost:8001", headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs, one of them with a name of a stranger's."""
    finished_run(tmp_path / "runs" / "digits")
    other = finished_run(tmp_path / "runs" / "other")
    info = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**info, "name": "<script>alert(1)</script>", "state": "running"}))
    (other / "config.yaml").write_text("model:\n  init_args:\n    resolution: 64\n    width: 8\n")
    write_metrics(other, [(40_000, "fid/mobilenet_v2", 300.0), (40_000, "loss/generator/loss", 2.0)])
    return tmp_path / "runs"


def test_nothing_is_shown_without_the_token(folder: Path) -> None:
    app = make_app(Shelf([folder], None, Sampler("cpu")), TOKEN)
    client = TestClient(app, "http://localhost:8001", follow_redirects=False)
    for path in ("/", "/run?run=digits", "/thumbnail?run=digits", "/?token=wrong", "/nowhere", "/docs"):
        answer = client.get(path)
        assert (answer.status_code, "digits" in answer.text) == (401, False)
    assert client.post("/cancel?run=digits", json={}).status_code == 401
    answer = client.get(f"/run?run=digits&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/run?run=digits")
    assert {"HttpOnly", "SameSite=lax"} <= set(answer.headers["set-cookie"].split("; "))
    # From then on the cookie opens, on this port.
    assert client.get("/run?run=digits").status_code == 200
    astray = client.get(f"http://localhost:8001//elsewhere.example/?token={TOKEN}")
    assert astray.headers["location"] == "/elsewhere.example/"


def test_the_list_and_a_run_are_pages(folder: Path) -> None:
    client = client_of(folder)
    page = client.get("/").text
    assert "<h1>2 runs</h1>" in page
    assert "FID 41.2, best 39.5" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    page = client.get("/run?run=digits").text
    assert "best 39.5 at 120 kimg" in page
    assert re.findall(r"<option value='(\d+)'>([\d.]+ kimg)", page) == [("000000200000", "200 kimg")]
    assert "cancel" not in page
    assert client.get("/thumbnail?run=digits").headers["content-type"] == "image/png"


def test_only_what_has_changed_is_sent_again(folder: Path) -> None:
    client = client_of(folder)
    for path in ("/", "/run?run=digits", "/compare?run=digits&run=other"):
        separator = "&" if "?" in path else "?"
        first = client.get(f"{path}{separator}part=body")
        assert not first.text.startswith("<!doctype")
        again = client.get(f"{path}{separator}part=body", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.text) == (304, "")
        with (folder / "digits" / "metrics.csv").open("a") as stream:
            stream.write("200000,1795244401,fid/mobilenet_v2,12.25\n")
        after = client.get(f"{path}{separator}part=body", headers={"If-None-Match": first.headers["etag"]})
        assert after.status_code == 200
        assert "12.2" in after.text


def test_runs_beside_each_other(folder: Path) -> None:
    client = client_of(folder)
    page = client.get("/compare?run=digits&run=other&run=digits").text
    assert "<h1>2 runs</h1>" in page
    assert re.findall(r"<td>(model[\w.]+)</td><td>(.*?)</td><td>(.*?)</td>", page) == [
        ("model.init_args.resolution", "32", "64"),
        ("model.init_args.width", "–", "8"),
    ]
    (fid,) = re.findall(r'data-lines="([^"]*)">(?:(?!figure).)*<b>FID</b>', page)
    lines = json.loads(fid.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">"))
    assert [line["label"] for line in lines] == ["digits", "<script>alert(1)</script>"]
    assert lines[1]["points"] == [[40.0, 300.0]]
    for path in ("/compare", "/compare?run=digits", "/compare?run=digits&run=digits"):
        assert client.get(path).status_code == 422
    assert client.get("/compare?run=digits&run=none").status_code == 404


def test_no_address_leaves_the_folders(folder: Path) -> None:
    client = client_of(folder / "digits")
    outside = finished_run(folder.parent / "outside")
    for key in ("../outside", str(outside), "digits/../other", "%2e%2e", "."):
        answer = client.get("/run", params={"run": key})
        assert answer.status_code == 404
        assert "no such run" in answer.json()["detail"]
    asked = {"run": "digits", "checkpoint": "../../../outside/checkpoints/000000200000"}
    assert client.get("/samples.png", params=asked).status_code == 404


def test_a_damaged_run_is_one_line(folder: Path) -> None:
    (folder / "digits" / "run.json").write_text("{")
    answer = client_of(folder).get("/run?run=digits", headers={"Accept": "text/html"})
    assert "run.json" in answer.text
    assert "class='error'" in answer.text


def test_it_only_shows_unless_it_may_act(folder: Path) -> None:
    said: list[Sequence[str]] = []

    def act(words: Sequence[str]) -> tuple[str, bool]:
        said.append(words)
        return "queued job 7", words[0] != "cancel"

    for path in ("/cancel?run=digits", "/resume?run=digits", "/queue"):
        answer = client_of(folder).post(path, json={"words": "-- fit --config mnist-dcgan"})
        assert answer.status_code == 403
        assert "--allow-actions" in answer.json()["detail"]
    client = client_of(folder, act=act)
    assert "queue" in client.get("/").text
    assert (
        client.post("/queue", json={"words": "--time 1:00:00 -- fit --run.name 'a b'"}).json()["detail"]
        == "queued job 7"
    )
    assert client.post("/resume?run=digits", json={}).status_code == 200
    assert client.post("/cancel?run=digits", json={}).status_code == 422
    path = str(folder / "digits")
    assert said == [
        ["submit", "--time", "1:00:00", "--", "fit", "--run.name", "a b"],
        ["resume", path],
        ["cancel", path],
    ]
    # What a form of another site could send.
    assert client.post("/cancel?run=digits", data={}).status_code == 422
    assert client.post("/queue", json={"words": "'"}).status_code == 422
    assert len(said) == 3


# ---- samples --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("ui")
    assert main(["fit", "--config=mnist-dcgan", *TINY, f"--data.path={shards}", f"--run.root={root}"]) == 0
    (path,) = root.iterdir()
    return path


@pytest.mark.slow
def test_a_checkpoint_is_sampled_as_by_generate(trained: Path, tmp_path: Path) -> None:
    client = client_of(trained.parent)
    (checkpoint,) = [path for path in (trained / "checkpoints").iterdir() if path.name.isdecimal()]
    asked: dict[str, str | int] = {"run": trained.name, "checkpoint": checkpoint.name, "num": 5, "seed": 3, "label": 7}
    answer = client.get("/samples.png", params=asked)
    grid = tmp_path / "grid.png"
    command = ["generate", str(checkpoint), "--num", "5", "--seed", "3", "--label", "7", "--grid", str(grid)]
    assert main(command) == 0
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), np.asarray(Image.open(grid)))
    assert client.get("/samples.png", params={**asked, "raw": "true"}).content != answer.content
    for change, word in (({"label": 10}, "classes 0 to 9"), ({"num": 0}, "num"), ({"seed": -1}, "seed")):
        refused = client.get("/samples.png", params={**asked, **change})
        assert refused.status_code == 422
        assert word in refused.json()["detail"]
    assert client.get("/samples.png", params={**asked, "checkpoint": "000000000999"}).status_code == 404


def test_numbers_of_samples_are_checked() -> None:
    for wrong in ({"num": 65}, {"seed": 2**63}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Wanted(**wrong)


def test_a_checkpoint_that_was_written_anew_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Grey:
        def __init__(self, value: int) -> None:
            self.value = value

        def require(self, ability: str) -> None:
            pass

        def generate(self, index: torch.Tensor, *, seed: int, labels: torch.Tensor | None) -> torch.Tensor:
            return torch.full((len(index), 1, 4, 4), self.value / 127.5 - 1)

    def load_family(checkpoint: Path, **_: object) -> tuple[Grey, None]:
        read.append(int((checkpoint / "complete.json").read_text()))
        return Grey(read[-1]), None

    monkeypatch.setattr("launch.inference.loading.load_family", load_family)
    checkpoint, sampler = tmp_path / "000000000016", Sampler("cpu")
    checkpoint.mkdir()
    # A run that goes on from an earlier checkpoint comes to the same images seen with other weights.
    for time, value in ((10, 50), (10, 50), (20, 150)):
        (checkpoint / "complete.json").write_text(str(value))
        os.utime(checkpoint / "complete.json", (time, time))
        grid = Image.open(io.BytesIO(sampler.grid(checkpoint, Wanted(num=1))))
        assert value in np.asarray(grid)
    assert read == [50, 150]
