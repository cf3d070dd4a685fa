"""Real images for every test: a small shard set of MNIST digits, built once by the command line itself."""

from __future__ import annotations

import functools
import inspect
import multiprocessing.util
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A test must never talk to a W&B server, whatever key the machine has.
os.environ["WANDB_MODE"] = "offline"

# Rounding is the same on every x86 processor then. Two trainings that are compared part where one takes an activation
# across its ReLU's corner and the other does not: in which step depends on the instructions. Before torch is imported.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

# A shell makes its background jobs deaf to Ctrl-C, and with them every process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: A worker is given its next file when two tests of the last remain: behind each of those with two come shorter ones.
LONGEST = (
    "tests/tune/test_sweeps.py",
    "tests/tune/test_families.py",
    "tests/tune/test_killed.py",
    "tests/packages/test_mean_teacher.py",
    "tests/launch/strategies/test_zero.py",
    "tests/launch/training/test_kill.py",
    "tests/launch/training/test_fit.py",
    "tests/launch/planning/test_footprint.py",
    "tests/lightning_modules/metrics/test_real_images.py",
    "tests/tune/test_on_slurm.py",
    "tests/slurm/test_survive.py",
)


#: Fixtures that fetch.
FETCHING = frozenset({"digits", "shards"})
#: What a test function's own text holds when it starts processes.
STARTING = re.compile(r"\bsubprocess\.|\bmultiprocessing\.|\bFork\(|\brun_ranks\(|\bsys\.executable\b")
#: A test without any of these marks is of the inner loop, `make test-quick`.
OUTSIDE = ("network", "process", "slow", "proof", "slurm", "gpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest files first: of several workers, none is left alone with one at the end.
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)
    for item in items:
        if not FETCHING.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("network")
        if isinstance(item, pytest.Function) and STARTING.search(_source(item.function)):
            item.add_marker("process")


@functools.cache
def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except OSError:
        return ""


# ---- what the inner loop may not do ---------------------------------------------------------------------------------

#: What the running test did that its marks do not say; None: it may.
_unmarked: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    # Threads outlive the test that began them.
    if _unmarked is None or threading.current_thread() is not threading.main_thread():
        return
    if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"):
        _refuse(f"starts a process ({event}): mark it `process`, or `network` where that fetches")
    elif event == "socket.connect" and isinstance(arguments[1], tuple) and not _is_here(arguments[1][0]):
        _refuse(f"connects to {arguments[1][0]}: mark it `network`")


def _refuse(what: str) -> None:
    assert _unmarked is not None
    # Code under test may take the error for one of the surroundings.
    _unmarked.append(what)
    raise RuntimeError(f"a test that {what}")


def _is_here(host: object) -> bool:
    return str(host) in ("localhost", "::1") or str(host).startswith("127.")


def _spawn(path: object, arguments: object, descriptors: object) -> int:
    # Of "spawn" and "forkserver", which raise no audit event.
    _listen("os.posix_spawn", ())
    return _spawnv_passfds(path, arguments, descriptors)


_spawnv_passfds: Any = multiprocessing.util.spawnv_passfds
multiprocessing.util.spawnv_passfds = _spawn  # type: ignore[assignment]
sys.addaudithook(_listen)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _unmarked
    if any(item.get_closest_marker(mark) for mark in OUTSIDE):
        return (yield)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as nothing:
        # What is in the machine's cache would hide that a test fetches.
        patch.setenv("GESSO_CACHE", nothing)
        _unmarked = []
        try:
            return (yield)
        finally:
            _unmarked = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        if _unmarked:
            pytest.fail(f"{item.name} {'; it '.join(dict.fromkeys(_unmarked))}", pytrace=False)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 1,000 real handwritten digits, 28 x 28 grey PNG, in class folders."""
    from PIL import Image

    from datamodules.assets.fetching import fetch

    source = fetch("mnist", progress=False)
    images = np.fromfile(source / "t10k-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)[:1000]
    labels = np.fromfile(source / "t10k-labels-idx1-ubyte", np.uint8)[8:]
    folder = tmp_path_factory.mktemp("digits")
    for number, image in enumerate(images):
        target = folder / str(labels[number])
        target.mkdir(exist_ok=True)
        Image.fromarray(image).save(target / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="session")
def shards(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those digits as a shard set at 32 px, grey, split 80/10/10."""
    from gesso.cli.main import main

    out = tmp_path_factory.mktemp("sets") / "digits"
    arguments = ["--size", "32", "--format", "png", "--samples-per-shard", "100", "--workers", "2"]
    assert main(["shards", "build", str(digits), str(out), *arguments]) == 0
    return out
