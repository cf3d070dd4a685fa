"""Real images for every test: a small shard set of MNIST digits, built once by the command line itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

# A test must never talk to a W&B server, whatever key the machine has.
os.environ["WANDB_MODE"] = "offline"

# A shell makes its background jobs deaf to Ctrl-C, and with them every process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: A worker is given its next file when two tests of the last remain: behind each of those with two come shorter ones.
LONGEST = (
    "tests/tune/test_sweeps.py",
    "tests/tune/test_families.py",
    "tests/tune/test_killed.py",
    "tests/launch/strategies/test_zero.py",
    "tests/launch/training/test_kill.py",
    "tests/launch/training/test_fit.py",
    "tests/launch/planning/test_plan.py",
    "tests/lightning_modules/metrics/test_real_images.py",
    "tests/tune/test_on_slurm.py",
    "tests/slurm/test_survive.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest files first: of several workers, none is left alone with one at the end.
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)


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
