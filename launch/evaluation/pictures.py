"""Pictures that are measured, all in memory: samples of a run, pictures of its data, and their features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from datamodules.shards import ShardData
from gesso.common.pixels import to_uint8
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics import specs
from lightning_modules.metrics.features import build_extractor

#: Pictures that a network makes or sees at once.
AT_ONCE = 64


@torch.no_grad()
def samples_of(module: ImageFamily, numbers: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
    """Samples of a family: uint8 [N, C, H, W], on the CPU.

    Args:
        module: the family.
        numbers: of the samples in the sequence of ``seed``, int64 [N].
        seed: of the sequence.
        labels: class of each, int64 [N]; None: as the family chooses.
    """
    made = []
    for places in torch.arange(len(numbers)).split(AT_ONCE):
        of = None if labels is None else labels[places]
        made.append(to_uint8(module.generate(numbers[places], seed=seed, labels=of)).cpu())
    return torch.cat(made)


def labelled_pictures(data: ShardData, split: str, limit: int) -> tuple[Tensor, Tensor]:
    """Pictures of a split, evenly spaced, uint8 [N, C, H, W], with their labels, int64 [N]; -1: none."""
    batches = list(data.split_batches(split, rank=0, world_size=1, batch_size=256, limit=limit))
    labels = torch.cat([torch.as_tensor(batch["label"]).long() for batch in batches])
    return torch.cat([batch["image"] for batch in batches]), labels


def features_by(extractor: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What maps uint8 pictures [N, C, H, W] to float32 features [N, D] on the CPU; its weights are fetched.

    Args:
        extractor: its name, one of ``specs.EXTRACTORS``.
        device: of the network.
    """
    network = build_extractor(extractor, fetch(specs.extractor_weights(extractor))).to(device)
    return lambda images: torch.cat([network(part.to(device)).pool.cpu() for part in images.split(AT_ONCE)])
