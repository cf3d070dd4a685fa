"""`gesso serve` from its command to its end: names, ports, and a SIGTERM while it is at work."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from launch.serving.listening import listening_socket
from launch.serving.options import ServeOptions
from launch.serving.server import load
from tests.launch.serving.models import picture_bytes, pixels, tiny_file, wait_until_up
from tests.ports import free_ports
from tests.waiting import wait_until


def test_sigterm_under_load_answers_what_is_under_way_and_leaves_nothing(tmp_path: Path) -> None:
    tiny_file("CUT", tmp_path / "strokes.safetensors")
    (port,) = free_ports(1)
    log = tmp_path / "log"
    command = ["serve", f"brush={tmp_path / 'strokes.safetensors'}", "--port", str(port), "--workers", "2"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gesso", *command],
            stdout=out,
            stderr=out,
            env={**os.environ, "GESSO_TOKEN": "secret"},
            start_new_session=True,
        )
    try:
        headers = {"Authorization": "Bearer secret"}
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
        wait_until_up(client)
        assert client.get("/models", headers={"Authorization": "Bearer x"}).status_code == 401
        data = picture_bytes(400, 600)
        with ThreadPoolExecutor(16) as pool:
            path, files = "/models/brush/translate", {"picture": data}
            futures = [
                pool.submit(httpx.post, f"http://127.0.0.1:{port}{path}", files=files, headers=headers, timeout=60)
                for _ in range(16)
            ]
            wait_until(lambda: answered(futures) + under_way(client) >= 16, "every request to be taken")
            process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in futures]
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert pixels(answers[0].content).shape == (400, 600, 3)
        # Within 5 seconds where nothing else runs.
        assert process.wait(60) == 0
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
            again.listen()
        # Nobody of its session is left.
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = log.read_text().splitlines()
    assert said == [
        "gesso: brush: a CUT, raw weights at 0 kimg; translate",
        f"gesso: http://localhost:{port}/  (Ctrl-C ends it)",
    ]


def answered(futures: list[Future[httpx.Response]]) -> int:
    return sum(future.done() for future in futures)


def under_way(client: httpx.Client) -> float:
    (line,) = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("gesso_requests_under_way{")
    ]
    return float(line.split()[1])


def test_models_have_names_of_their_own(tmp_path: Path) -> None:
    file = str(tiny_file("DCGAN", tmp_path / "my strokes.safetensors"))
    options = ServeOptions()
    (model,) = load([file], options)
    assert model.facts.name == "my-strokes"
    assert [one.facts.name for one in load([file, f"b={file}"], options)] == ["my-strokes", "b"]
    with pytest.raises(ValueError, match=r"there is a my-strokes already .*; write NAME="):
        load([file, file], options)
    with pytest.raises(ValueError, match="a model's name has letters"):
        load([f"a/b={file}"], options)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load([str(tmp_path / "nowhere")], options)


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}: address already in use; choose another --port"):
            listening_socket("127.0.0.1", port)
    for options in ({"port": 70_000}, {"port": -1}, {"workers": 0}, {"grace": 0.0}, {"queue": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ServeOptions(**options)  # type: ignore[arg-type]
