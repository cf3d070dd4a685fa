"""Real pictures to compare with: feature statistics of a split, which are cached, and a few held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from torch import Tensor

from datamodules.assets.fetching import cache_folder
from datamodules.shards import ShardData
from datamodules.streaming.reader import check_sizes
from gesso.common.pixels import to_float
from gesso.common.text import one_line
from launch.runs.tracking import rank_zero_print
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
    label: int | None = None,
    progress: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> FeatureStatistics:
    """Feature statistics of a split's images at the data module's size; computed by all ranks together, then cached.

    They are found again by the shards' checksums in the manifest, and only for shards as long as that says.

    Args:
        data: the data module.
        split: name of the split.
        network: the feature extractor.
        limit: number of images, evenly spaced over the shards; None: all.
        label: class of the images; None: any.
        progress: show a bar.

    Raises:
        ValueError: a shard's file is not as long as the manifest says, or there are no such images; names it.
    """
    data = data.pictures
    manifest = data.manifest
    # By every rank, before any of them waits for the others.
    check_sizes(manifest, split)
    available = data.number_of(split, label)
    number = min(limit or available, available)
    chosen = f"{split}-{number}" if label is None else f"{split}-class{label}-{number}"
    key = f"{manifest.fingerprints[split][:20]}-{chosen}-{data.size}px-{data.channels}ch-{network.name}"
    device = next(network.parameters()).device
    file = cache_folder() / "statistics" / f"{key}.safetensors"
    statistics = _kept(file)
    known = statistics is not None
    if world_size > 1:
        # All ranks must decide alike, even while another run is writing the file.
        flag = torch.tensor(int(known), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        known = bool(flag.item())
    if known and statistics is not None:
        return statistics
    images = data.reference_batches(split, rank=rank, world_size=world_size, batch_size=64, limit=number, label=label)
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
        _keep(statistics, file)
    # Every rank has computed them: a node with its own cache folder needs no file.
    return statistics


def _kept(file: Path) -> FeatureStatistics | None:
    """Statistics out of the cache; None where there are none, or a damaged file, which is written anew."""
    if not file.is_file():
        return None
    try:
        return FeatureStatistics.load(file)
    except ValueError as error:
        rank_zero_print(f"{one_line(error)}; computed anew")
        return None


def _keep(statistics: FeatureStatistics, file: Path) -> None:
    """Puts statistics into the cache; where that cannot be written, they are computed again each time."""
    try:
        statistics.save(file)
    except (OSError, SafetensorError) as error:
        rank_zero_print(
            f"statistics of the real pictures are not kept for later ({one_line(error)}): "
            "set GESSO_CACHE to a folder that can be written"
        )


def held_out(data: ShardData, count: int, device: torch.device) -> dict[str, Any]:
    """A batch of ``count`` held-out samples, always the same, as in training, on the device."""
    return on_device(data.held_out_batch(count), list(data.streams()), device)


def on_device(batch: Mapping[str, Any], images: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Converts a batch for the family: ``images`` (keys) to float32 in [-1, 1], and all tensors to the device.

    Latents are floats already.
    """

    def moved(name: str, value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return (to_float(value) if name in images and value.dtype == torch.uint8 else value).to(device)

    return {name: moved(name, value) for name, value in batch.items()}
