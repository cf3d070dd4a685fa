"""A shard set whose images tell their numbers, for the tests of the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from datamodules.manifest import Manifest
from tests.datamodules.shardset import Sample, in_shards, numbered, write_shards


@pytest.fixture(scope="session")
def numbered_set(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """67 numbered training images in shards of 30, 7, 19 and 11, labelled by number mod 3, with captions; 10 in val."""
    train = [Sample(numbered(n), n % 3, f"number {n}") for n in range(67)]
    val = [Sample(numbered(1000 + n), n % 3, f"number {1000 + n}") for n in range(10)]
    root = tmp_path_factory.mktemp("numbered")
    return write_shards(root, train=in_shards(train, 30, 7, 19, 11), val=in_shards(val, 4, 6))


@pytest.fixture(scope="session")
def number_of() -> Callable[[Any], list[int]]:
    """Reads the numbers back from a batch of images, uint8 NHWC."""
    return lambda images: [int(image[0, 0, 0]) << 8 | int(image[0, 0, 1]) for image in images]
