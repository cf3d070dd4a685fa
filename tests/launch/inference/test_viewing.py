"""The newest picture in a browser."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from typing import IO

import numpy as np
import pytest
import torch
from PIL import Image

from launch.inference.viewing import BOUNDARY, Viewer
from tests.ports import free_ports


def part(stream: IO[bytes]) -> np.ndarray:
    """The next picture of a multipart stream."""
    assert stream.readline() == f"--{BOUNDARY}\r\n".encode()
    headers = dict(line.decode().strip().split(": ") for line in (stream.readline(), stream.readline()))
    assert stream.readline() == b"\r\n"
    data = stream.read(int(headers["Content-Length"]))
    assert stream.readline() == b"\r\n"
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_browser_sees_the_newest_picture() -> None:
    with Viewer(free_ports(1)[0]) as viewer:
        with urllib.request.urlopen(viewer.url, timeout=10) as page:
            assert b'<img src="stream"' in page.read()
        red, blue = (
            torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 32, 48) for colour in ([1.0, -1, -1], [-1.0, -1, 1])
        )
        viewer.show(blue)
        viewer.show(red)
        with urllib.request.urlopen(f"{viewer.url}stream", timeout=10) as stream:
            assert stream.headers["Content-Type"] == f"multipart/x-mixed-replace; boundary={BOUNDARY}"
            first = part(stream)
            assert first.shape == (32, 48, 3)
            assert np.abs(first.mean((0, 1)) - (255, 0, 0)).max() < 4
            viewer.show(blue)
            assert np.abs(part(stream).mean((0, 1)) - (0, 0, 255)).max() < 4
            viewer.__exit__(None, None, None)
            assert stream.read() == f"--{BOUNDARY}\r\n".encode()


def test_others_on_the_machine_do_not() -> None:
    with Viewer() as viewer:
        for path in ("", "stream", "x/stream"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}/{path}", timeout=10)


def test_a_port_that_is_taken() -> None:
    with Viewer() as viewer, pytest.raises(OSError, match=f"port {viewer.port} cannot be opened .* --live-port"):
        Viewer(viewer.port)
