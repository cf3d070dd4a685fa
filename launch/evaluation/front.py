"""Metrics of a run, of a shard set, or of batches of images."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.manifest import MANIFEST_NAME
from datamodules.shards import ShardData
from gesso.common.arguments import one_of, whole
from gesso.common.pixels import check_values, to_uint8
from gesso.common.ranges import SEEDS, Range
from launch.evaluation import driver
from launch.evaluation.sources import Asked, data_of, given_sets
from launch.inference.loading import load_family
from launch.training.family_files import load_pictures
from launch.training.hardware import best_device
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, GenerationEvaluator
from lightning_modules.metrics.specs import EXTRACTORS


@torch.no_grad()
def evaluate(
    source: str | os.PathLike[str] | Iterable[Tensor],
    reference: str | os.PathLike[str] | None,
    options: EvaluationOptions,
    *,
    second: str | os.PathLike[str] | None,
    num_samples: int | None,
    reference_split: str | None,
    device: str,
    sampling: Mapping[str, object] | None = None,
) -> dict[str, float]:
    """See ``gesso.evaluate``; ``num_samples`` and ``reference_split`` are those of the options where they are given."""
    where = best_device(device)
    options = _checked(options if reference_split is None else replace(options, reference_split=reference_split))
    if num_samples is not None:
        num_samples = whole(num_samples, "num_samples", Range(1))
    of_a_run = isinstance(source, str | os.PathLike) and not _is_shard_set(Path(source))
    for name, value in {"second": second, "direction": options.direction, "sampling": sampling or None}.items():
        if value is not None and not of_a_run:
            raise ValueError(f"{name} belongs to a run: images have none")
    if not isinstance(source, str | os.PathLike):
        batches = list(_batches([source] if isinstance(source, Tensor) and source.dim() == 4 else source, num_samples))
        number = sum(map(len, batches))
        images: Iterable[Tensor] = batches
        shape = batches[0].shape if batches else (0, 3, 0, 0)
        size: dict[str, Any] = {"channels": int(shape[1]), "size": int(shape[2])}
    elif not of_a_run:
        reference = reference or source
        # Of a set of latents the pictures that were encoded.
        data = ShardData(os.fspath(source), options.batch_size).pictures
        size = {"channels": data.channels, "size": data.size}
        split = options.split or "test"
        number = min(num_samples or 10**12, data.manifest.split(split).samples)
        images = data.reference_batches(split, rank=0, world_size=1, batch_size=options.batch_size, limit=number)
    else:
        module, origin = load_family(source, device=where)
        if sampling:
            module.sample_with(sampling)
        number = num_samples or default_samples(module)
        asked = Asked(
            {field: field for field in ("second", "split", "reference_split", "reference_samples")}
            | {"data": "reference"},
            data=_named(reference),
            second=_named(second),
            split=options.split,
            reference_split=reference_split,
            reference_samples=options.reference_samples,
        )
        return _of_run(module, Path(origin["path"]), asked, replace(options, num_samples=_enough(number)))
    evaluator = GenerationEvaluator(
        lambda index, batch: (batch or {})["image"], replace(options, num_samples=_enough(number)), "images"
    )
    if reference is None and driver.needs_data(evaluator):
        raise ValueError("batches of images need a shard set to be compared with: give it as reference")
    against = None
    if reference is not None:
        against = ShardData(ShardData(os.fspath(reference)).pictures.path, options.batch_size, **size)
    driver.prepare(evaluator, against, where, option=options.option)
    first = 0
    for batch in images:
        evaluator.update(torch.arange(first, first + len(batch)), {"image": batch.to(where)})
        first += len(batch)
    return evaluator.compute()


def default_samples(module: ImageFamily) -> int:
    """Default number of samples: 50,000 as in papers, or 100 for families that stylise, which is slow."""
    # Stylisation takes one picture at a time; translation stops after all held-out images.
    return 100 if "stylize" in module.abilities() else 50_000


def _of_run(module: ImageFamily, checkpoint: Path, asked: Asked, options: EvaluationOptions) -> dict[str, float]:
    evaluator = module.evaluator(options)
    if evaluator is None:
        raise ValueError(f"{checkpoint}: nothing can be measured of {module.described()}")
    given = given_sets(evaluator, asked)
    data = data_of(checkpoint, module, given) if driver.needs_data(evaluator) else None
    load_pictures(module)
    driver.prepare(evaluator, data, module.device, option=options.option)
    return driver.score(evaluator, data, module.device)


def _named(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _enough(number: int) -> int:
    if number < 2:
        raise ValueError(f"{number} images: metrics need 2 or more")
    return number


def _checked(options: EvaluationOptions) -> EvaluationOptions:
    """The options of a Python caller with Python's own numbers; raises a ValueError that names a wrong one."""
    one_of(options.extractor, "extractor", EXTRACTORS)
    if options.metrics is not None and not options.metrics:
        raise ValueError("metrics is empty: name one or more, or leave it out for the usual ones")
    limit = options.reference_samples
    return replace(
        options,
        batch_size=whole(options.batch_size, "batch_size", Range(1)),
        seed=whole(options.seed, "seed", SEEDS),
        reference_samples=None if limit is None else whole(limit, "reference_samples", Range(1)),
    )


def _batches(source: Iterable[Tensor], limit: int | None) -> Iterator[Tensor]:
    """Batches of uint8 images, up to ``limit`` images in total.

    Raises:
        ValueError: they are no tensors of square images of one size, or their values are of another range.
    """
    left, shape, least = limit, None, math.inf
    for batch in source:
        if left is not None and left <= 0:
            break
        if not isinstance(batch, Tensor) or batch.dim() != 4 or batch.shape[1] not in (1, 3):
            found = list(batch.shape) if isinstance(batch, Tensor) else f"a {type(batch).__name__}"
            raise ValueError(f"a batch of images is a tensor [N, 1 or 3, H, W], not {found}")
        if not len(batch):
            continue
        check_values(batch, "a batch of images")
        shape = shape or batch.shape[1:]
        if batch.shape[1:] != shape or shape[1] != shape[2]:
            both = " and ".join(dict.fromkeys(str(list(one)) for one in (shape, batch.shape[1:])))
            raise ValueError(f"images of the shape {both}: make all of them squares of one size, as a shard set's are")
        if batch.is_floating_point():
            least = min(least, float(batch.amin()))
        images = to_uint8(batch if left is None else batch[:left])
        left = None if left is None else left - len(images)
        yield images
    if 0 <= least < math.inf:
        warnings.warn("no value of the images is below 0: float images lie in [-1, 1], not in [0, 1]", stacklevel=4)


def _is_shard_set(path: Path) -> bool:
    return path.name == MANIFEST_NAME or (path / MANIFEST_NAME).is_file()
