"""How good the pictures are: features of generated images against a data set's, on all ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules.assets.fetching import cache_folder, fetch
from datamodules.shards import ShardData
from gesso.common.pixels import to_float, to_uint8
from lightning_modules.kinds.generative import GenerativeFamily
from lightning_modules.metrics.features import FeatureExtractor, build_extractor
from lightning_modules.metrics.generation import GenerationMetrics, reference_statistics
from lightning_modules.metrics.specs import ExtractorName
from lightning_modules.metrics.statistics import FeatureStatistics

#: KID and PRDC compare single features; of a large reference they see this many.
REFERENCE_FEATURES = 10_000


def extractor(name: ExtractorName, device: torch.device) -> FeatureExtractor:
    """The feature network ``name`` with its real weights, fetched if need be."""
    return build_extractor(name, fetch(weights_of(name))).to(device)


def weights_of(extractor: ExtractorName) -> str:
    """The asset that holds an extractor's weights."""
    return "mobilenet_v2" if extractor == "mobilenet_v2" else "inception"


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


def held_out(data: ShardData, count: int, device: torch.device) -> dict[str, Tensor]:
    """The same few images never trained on, by name: float32 NCHW in [-1, 1], on the device."""
    return {name: to_float(images).to(device) for name, images in data.held_out_images(count).items()}


@torch.no_grad()
def score(
    family: GenerativeFamily,
    metrics: GenerationMetrics,
    *,
    num_samples: int,
    batch_size: int = 64,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int], None] = lambda images: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Metrics of samples 0 to ``num_samples`` - 1 of the sequence ``seed``; the same for any number of ranks.

    Args:
        progress: called with the number of images made on all ranks since the last call.
        interrupted: asked before every batch, equally often on every rank: whether to break off.

    Returns:
        The metrics by name; none if it was interrupted.
    """
    metrics.reset()
    own = torch.arange(rank, num_samples, world_size)
    for first in range(0, -(-num_samples // world_size), batch_size):
        if interrupted():
            return {}
        # The last one of a rank may be empty.
        if len(index := own[first : first + batch_size]):
            images = family.generate(index, seed=seed)
            metrics.update(to_uint8(images), index.to(images.device))
            progress(len(index) * world_size)
    return metrics.compute()
