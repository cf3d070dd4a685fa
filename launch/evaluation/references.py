"""Real pictures to compare with: a split's feature statistics, computed once, and a few samples never trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules.assets.fetching import cache_folder
from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from lightning_modules.metrics.features import FeatureExtractor
from lightning_modules.metrics.generation import reference_statistics
from lightning_modules.metrics.statistics import FeatureStatistics

#: KID and PRDC compare single features; of a large reference they see this many.
REFERENCE_FEATURES = 10_000


def reference(
    data: ShardData,
    split: str,
    network: FeatureExtractor,
    *,
    limit: int | None = None,
    progress: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> FeatureStatistics:
    """Statistics of a split's images at the size the data module gives; computed once, by all ranks, then cached.

    Args:
        limit: only so many images, evenly spaced over the shards; None: all.
        progress: show a bar.
    """
    manifest = data.manifest
    number = min(limit or manifest.split(split).samples, manifest.split(split).samples)
    key = f"{manifest.fingerprints[split][:20]}-{split}-{number}-{data.size}px-{data.channels}ch-{network.name}"
    device = next(network.parameters()).device
    file = cache_folder() / "statistics" / f"{key}.safetensors"
    known = file.is_file()
    if world_size > 1:
        # All ranks take the same way even while another run is writing the file.
        flag = torch.tensor(int(known), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        known = bool(flag.item())
    if known:
        return FeatureStatistics.load(file)
    images = data.reference_batches(split, rank=rank, world_size=world_size, batch_size=64, limit=number)
    steps = -(-number // (64 * world_size))
    statistics = reference_statistics(
        track(images, f"{network.name} of {split}", steps, console=Console(stderr=True), disable=not progress),
        network,
        num_samples=number,
        cap=REFERENCE_FEATURES,
        sync=world_size > 1,
        origin={"data": manifest.name, "split": split, "size": f"{data.size}", "channels": f"{data.channels}"},
    )
    if rank == 0:
        statistics.save(file)
    # Every rank has them all: a node with a cache folder of its own needs no file.
    return statistics


def held_out(data: ShardData, count: int, device: torch.device) -> dict[str, Any]:
    """The same few samples never trained on, as a training batch has them, on the device."""
    return on_device(data.held_out_batch(count), list(data.streams()), device)


def on_device(batch: Mapping[str, Any], images: Sequence[str], device: torch.device) -> dict[str, Any]:
    """A batch with its ``images`` (keys) as float32 in [-1, 1], and all its tensors on the device."""

    def moved(name: str, value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return (to_float(value) if name in images else value).to(device)

    return {name: moved(name, value) for name, value in batch.items()}
