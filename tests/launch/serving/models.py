"""Tiny models to serve, and a server in a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from launch.checkpoints.export import export
from launch.serving.answers import Seal
from launch.serving.asks import Ask, Generate, Verb
from launch.serving.desk import Desk
from launch.serving.families import ServedRun
from launch.serving.options import ServeOptions
from launch.serving.served import Facts, Served
from launch.serving.server import server_of
from lightning_modules.catalogue import family
from lightning_modules.core.family import ImageFamily
from tests.ports import free_ports

OPTIONS: dict[str, dict[str, Any]] = {
    "DCGAN": {
        "resolution": 32,
        "channels": 1,
        "latent_dim": 8,
        "num_classes": 3,
        "generator": {"width": 8},
        "discriminator": {"width": 4},
    },
    "FastStyle": {"resolution": 32, "styles": ["a.png", "b.png"], "network": {"kind": "light"}},
    "CUT": {
        "resolution": 32,
        "generator": {"width": 4, "blocks": 1, "antialias": True},
        "discriminator": {"width": 4, "layers": 2},
    },
}


def tiny(name: str) -> ImageFamily:
    """A family of random weights, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = family(name).from_options(OPTIONS[name])
    return module.requires_grad_(False).eval()


def tiny_file(name: str, out: Path) -> Path:
    """The same as a file of weights, which `gesso serve` loads like a run."""
    export(tiny(name), out, origin={"images_seen": 0, "average": True, "path": "nowhere"})
    return out


def served(name: str) -> ServedRun:
    return ServedRun(name.lower(), tiny(name), "random weights")


class Counting:
    """A model whose pictures say which ask they answer; ``gate`` holds it up."""

    def __init__(self, name: str = "counting", *, most: int = 4, fills: bool = False) -> None:
        self.facts = Facts(name, "a model that counts", ("generate",), channels=1, resolution=1)
        self.most, self.fills = most, fills
        self.gate = threading.Event()
        self.gate.set()
        #: The seeds of each batch.
        self.batches_seen: list[list[int]] = []

    def check(self, ask: Ask) -> None:
        assert isinstance(ask, Generate)

    def batches(self, verb: Verb) -> bool:
        return True

    def batch(self, verb: Verb) -> int:
        return self.most

    def exact(self, verb: Verb) -> bool:
        return self.fills

    def again(self) -> Served:
        return self

    def run(self, asks: Sequence[Ask]) -> list[np.ndarray]:
        assert self.gate.wait(30)
        seeds = [ask.seed for ask in asks if isinstance(ask, Generate)]
        self.batches_seen.append(seeds)
        if 13 in seeds:
            raise ValueError("13 is none of mine")
        if 99 in seeds:
            raise RuntimeError("a defect")
        return [np.full((1, 1, 1), seed % 256, np.uint8) for seed in seeds]


def picture_bytes(height: int = 40, width: int = 60, *, format: str = "PNG", seed: int = 0) -> bytes:
    """A picture file of noise over a slope."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    slope = np.linspace(0, 190, width)[None, :, None]
    buffer = BytesIO()
    Image.fromarray((noise + slope).astype(np.uint8)).save(buffer, format)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.array(image)


@contextlib.contextmanager
def serving(models: Sequence[Served], *, seal: Seal | None = None, **options: Any) -> Iterator[httpx.Client]:
    """Context manager: a client of a server of models, in a thread of this process."""
    (port,) = free_ports(1)
    desk = Desk(models, ServeOptions(port=port, **options), seal)
    server = server_of(desk)
    server.config.port = port
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    headers = {"Authorization": f"Bearer {desk.options.token}"} if desk.options.token else {}
    limits = httpx.Limits(max_connections=64)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, limits=limits) as client:
        try:
            wait_until_up(client)
            yield client
        finally:
            server.should_exit = True
            thread.join(30)
            desk.close()
    assert not thread.is_alive()


def wait_until_up(client: httpx.Client, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            assert client.get("/health", timeout=10).json() == {"status": "ok"}
            return
        except httpx.TransportError:
            assert time.monotonic() < end
            time.sleep(0.05)
