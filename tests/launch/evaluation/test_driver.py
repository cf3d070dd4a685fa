"""The driver of evaluations: every held-out picture on exactly one rank, whatever the number of ranks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from PIL import Image

from datamodules.shards import ShardData
from gesso.cli.main import main
from gesso.common.pixels import to_uint8
from launch.evaluation.driver import own_pictures, steps_of_a_rank
from tests.pictures import photographs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ShardData:
    folder = tmp_path_factory.mktemp("held-out")
    (folder / "pictures").mkdir()
    pieces = to_uint8(photographs(160)).unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    for number, image in enumerate(pieces):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "pictures" / f"{number:03d}.png")
    command = ["shards", "build", str(folder / "pictures"), str(folder / "shards"), "--size", "32", "--format", "png"]
    assert main(command) == 0
    return ShardData(str(folder / "shards"), workers=0)


def of_rank(data: ShardData, count: int, rank: int, ranks: int, size: int) -> list[dict[int, torch.Tensor]]:
    """Batches of a rank: number -> picture."""
    batches = own_pictures(data, None, count, rank, ranks, size)
    return [dict(zip(numbers.tolist(), batch["image"], strict=True)) for numbers, batch in batches if batch]


def together(batches: list[dict[int, torch.Tensor]]) -> dict[int, torch.Tensor]:
    return {number: image for batch in batches for number, image in batch.items()}


@pytest.mark.process
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("rounds", [0.5, 1, 2.3])
def test_ranks_share_the_pictures(data: ShardData, rounds: float, size: int) -> None:
    samples = data.manifest.split(data.held_out_split).samples
    count = round(rounds * samples)
    whole = together(of_rank(data, count, 0, 1, size))
    assert list(whole) == list(range(count))
    assert all(torch.equal(whole[n], whole[n + samples]) for n in range(min(count - samples, samples // 2)))
    for ranks in (2, 3, 4):
        shares = [of_rank(data, count, rank, ranks, size) for rank in range(ranks)]
        assert sorted(number for share in shares for number in together(share)) == list(range(count))
        for share in shares:
            assert all(torch.equal(image, whole[number]) for number, image in together(share).items())
        lengths = [len(share) for share in shares]
        assert steps_of_a_rank(count, samples, ranks, size) == lengths[0]
        assert all(a >= b for a, b in pairwise(lengths))
