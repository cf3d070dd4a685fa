"""Metrics of whatever holds images: a run, a shard set, or batches of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from datamodules.assets.fetching import fetch
from datamodules.manifest import MANIFEST_NAME
from datamodules.shards import ShardData
from gesso.common.pixels import to_uint8
from launch.evaluation.references import reference as reference_statistics
from launch.inference.model import Model
from launch.training.hardware import best_device
from lightning_modules.metrics.features import build_extractor
from lightning_modules.metrics.generation import GenerationMetrics
from lightning_modules.metrics.specs import ExtractorName, extractor_weights


@torch.no_grad()
def evaluate(
    source: str | os.PathLike[str] | Iterable[Tensor],
    reference: str | os.PathLike[str] | None,
    *,
    metrics: Sequence[str],
    extractor: ExtractorName,
    num_samples: int | None,
    split: str,
    reference_split: str,
    reference_samples: int | None,
    batch_size: int,
    seed: int,
    device: str,
) -> dict[str, float]:
    """See ``gesso.evaluate``."""
    where = best_device(device)
    size: dict[str, Any] = {}
    if not isinstance(source, str | os.PathLike):
        batches = list(_batches(source, num_samples))
        number = sum(map(len, batches))
        images: Iterable[Tensor] = batches
        shape = batches[0].shape if batches else (0, 3, 0, 0)
        size = {"channels": int(shape[1]), "size": int(shape[2])}
    elif _is_shard_set(Path(source)):
        reference = reference or source
        data = ShardData(os.fspath(source), batch_size)
        size = {"channels": data.channels, "size": data.size}
        number = min(num_samples or 10**12, data.manifest.split(split).samples)
        images = data.reference_batches(split, rank=0, world_size=1, batch_size=batch_size, limit=number)
    else:
        model = Model.load(source, device=device)
        number = num_samples or 50_000
        options: Any = model.module.hparams
        size = {"channels": options.get("channels"), "size": options.get("resolution")}
        reference = reference or _data_of(Path(model.path))
        images = _samples(model, number, seed=seed, batch_size=batch_size)
    if reference is None:
        raise ValueError("batches of images need a shard set to be compared with: give it as reference")
    if number < 2:
        raise ValueError(f"{number} images: metrics need 2 or more")
    network = build_extractor(extractor, fetch(extractor_weights(extractor))).to(where)
    data = ShardData(os.fspath(reference), batch_size, **size)
    statistics = reference_statistics(data, reference_split, network, limit=reference_samples)
    scores: Any = GenerationMetrics(network, statistics, list(metrics), num_samples=number).to(where)
    first = 0
    for batch in images:
        scores.update(to_uint8(batch).to(where), torch.arange(first, first + len(batch), device=where))
        first += len(batch)
    return scores.compute()


def _batches(source: Iterable[Tensor], limit: int | None) -> Iterator[Tensor]:
    """Batches of uint8 images, no more than ``limit`` in all."""
    left = limit
    for batch in source:
        if left is not None and left <= 0:
            return
        images = to_uint8(batch if left is None else batch[:left])
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"a batch of images is [N, 1 or 3, H, W], not {list(images.shape)}")
        left = None if left is None else left - len(images)
        yield images


def _samples(model: Model, number: int, *, seed: int, batch_size: int) -> Iterator[Tensor]:
    family = model.able_to_generate()
    for index in torch.arange(number).split(batch_size):
        yield family.generate(index, seed=seed)


def _is_shard_set(path: Path) -> bool:
    return path.name == MANIFEST_NAME or (path / MANIFEST_NAME).is_file()


def _data_of(checkpoint: Path) -> str:
    """The shard set that the checkpoint's run was trained on."""
    config = checkpoint.parent.parent / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{checkpoint}: its run's config.yaml is not beside it; give the shard set as reference")
    return yaml.safe_load(config.read_text())["data"]["init_args"]["path"]
