"""What a Python caller may have measured, and what is refused in a line before anything is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gesso
from launch.evaluation.front import _batches

IMAGES = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((IMAGES * 127.5 + 127.5).long(), r"images of int64: they are uint8 in \[0, 255\], or float in \[-1, 1\]"),
        (IMAGES * 127.5 + 127.5, r"a batch of images holds values from .* to 25\d.*: float images lie in \[-1, 1\]"),
        (torch.where(IMAGES > 0.9, float("nan"), IMAGES), "a batch of images holds NaN or infinite values"),
        (IMAGES[:, :, :, :16], r"images of the shape \[1, 32, 16\]: make all of them squares of one size"),
        (IMAGES[0], r"a batch of images is a tensor \[N, 1 or 3, H, W\], not \[1, 32, 32\]"),
        (IMAGES.numpy(), "a batch of images is a tensor .*, not a ndarray"),
    ],
)
def test_images_of_another_range_or_shape_are_refused(shards: Path, batch: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gesso.evaluate([batch], shards, device="cpu")


@pytest.mark.parametrize("other", [IMAGES[:, :, :16, :16], IMAGES.repeat(1, 3, 1, 1)])
def test_images_are_all_of_one_shape(shards: Path, other: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \[1, 32, 32\] and \[.*\]: make all of them squares of one size"):
        gesso.evaluate([IMAGES, other], shards, device="cpu")


def test_bright_images_are_wondered_at() -> None:
    with pytest.warns(UserWarning, match="no value of the images is below 0"):
        list(_batches([IMAGES.abs(), IMAGES.abs()], None))
    assert [len(batch) for batch in _batches([IMAGES, IMAGES[:0], IMAGES.abs()], 12)] == [8, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_samples": 0}, "num_samples is 0; it must be a whole number 1 or more"),
        ({"num_samples": 20.5}, r"num_samples is 20\.5"),
        ({"num_samples": 1}, "1 images: metrics need 2 or more"),
        ({"reference_samples": 0}, "reference_samples is 0; it must be a whole number 1 or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": 1.5}, r"seed is 1\.5"),
        ({"extractor": "foo"}, "extractor is 'foo'; it must be one of inception-tf, inception-clean, mobilenet_v2"),
        ({"metrics": []}, "metrics is empty: name one or more"),
        ({"metrics": "fud"}, "no metric 'fud'; there are fid, kid"),
        ({"direction": "b-to-a"}, "direction belongs to a run: images have none"),
        ({"second": "/nowhere"}, "second belongs to a run: images have none"),
    ],
)
def test_options_that_are_none_are_refused(shards: Path, options: dict[str, Any], said: str) -> None:
    for source in (shards, [IMAGES]):
        with pytest.raises(ValueError, match=said):
            gesso.evaluate(source, shards, device="cpu", **{"metrics": ["fid"], **options})  # type: ignore[arg-type]
