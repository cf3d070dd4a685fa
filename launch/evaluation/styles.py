"""How well a family stylises: held-out photographs in held-out styles, on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from launch.evaluation.samples import extractor, held_out, weights_of
from lightning_modules.core.family import Preview
from lightning_modules.kinds.stylizing import StyleFamily, sheet
from lightning_modules.metrics.specs import ExtractorName
from lightning_modules.metrics.style import StyleMetrics
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.pictures.smoothing import TemporalSmoother

#: So many of the held-out styles take turns.
STYLES = 64


def assets(names: Sequence[str], network: ExtractorName) -> list[str]:
    """The published weights that these metrics need."""
    lpips = ["vgg16_lpips"] if {"lpips", "artfid"} & set(names) else []
    return ["vgg19_normalized", *lpips, *([weights_of(network)] if "artfid" in names else [])]


def build_metrics(family: StyleFamily, names: Sequence[str], network: ExtractorName) -> StyleMetrics:
    """The metrics with the family's own encoder, and other networks' real weights, fetched if need be."""
    device, needed = family.device, assets(names, network)
    lpips = LPIPS(fetch("vgg16_lpips")).to(device) if "vgg16_lpips" in needed else None
    features = extractor(network, device) if "artfid" in names else None
    return StyleMetrics(family.encoder, lpips, features, names).to(device)


@torch.no_grad()
def score(
    family: StyleFamily,
    metrics: StyleMetrics,
    data: ShardData,
    *,
    num_samples: int,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int], None] = lambda images: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Metrics of ``num_samples`` held-out photographs, each in the next style; the same for any number of ranks.

    Args:
        data: of whose validation split (or the last there is) the photographs are, and the styles, where it has some.
        progress: called with the number of pictures made on all ranks since the last call.
        interrupted: asked before every picture, equally often on every rank: whether to break off.

    Returns:
        The metrics by name; none if it was interrupted.
    """
    metrics.reset()
    batch = held_out(data, STYLES, family.device)
    styles = family.styles_of(batch)
    photographs = data.manifest.split(data.held_out_split).samples
    own = contents(data, num_samples, rank, world_size)
    for _ in range(most_of_a_rank(num_samples, photographs, world_size)):
        if interrupted():
            return {}
        # Some ranks have a photograph less in each round through them.
        if (found := next(own, None)) is not None:
            number, content = found
            content = to_float(content).to(family.device)
            # A photograph that comes again meets another style.
            picture, style = styles[(number + number // photographs) % len(styles)]
            metrics.update(content, family.stylize(content, style), picture)
            progress(world_size)
    return metrics.compute()


def most_of_a_rank(count: int, photographs: int, world_size: int) -> int:
    """How many of ``count`` photographs the first rank gets, which gets most."""
    rounds, rest = divmod(count, photographs)
    return rounds * -(-photographs // world_size) + -(-rest // world_size)


def contents(data: ShardData, count: int, rank: int, world_size: int) -> Iterator[tuple[int, Tensor]]:
    """This rank's of ``count`` held-out photographs, from the beginning again where there are fewer.

    Yields:
        the photograph's number, and uint8 [1, 3, H, W].
    """
    split = data.held_out_split
    first = 0
    while first < count:
        limit = min(data.manifest.split(split).samples, count - first)
        number = first + rank
        for batch in data.reference_batches(split, rank=rank, world_size=world_size, batch_size=8, limit=limit):
            for image in batch.split(1):
                yield number, image
                number += world_size
        first += limit


@torch.no_grad()
def temporal_consistency(family: StyleFamily, data: ShardData, video: Path) -> dict[str, float]:
    """How far a video in the first held-out style is from following its own motion: ``TemporalConsistency``."""
    from launch.inference.video import VideoReader  # of all evaluations, only this one needs FFmpeg

    batch = held_out(data, 1, family.device)
    _, style = family.styles_of(batch)[0]
    # Nothing is smoothed: the network is to be measured.
    smoother = TemporalSmoother(0)
    with VideoReader(video) as reader:
        for frame in reader.frames():
            smoother(frame.picture, family.stylize(frame.picture.to(family.device), style))
    return {name: value.item() for name, value in smoother.raw.compute().items()}


@torch.no_grad()
def contact_sheet(family: StyleFamily, data: ShardData, *, contents: int = 8, styles: int = 8) -> Preview:
    """Held-out photographs (left) in held-out or the network's own styles (on top)."""
    batch = held_out(data, contents, family.device)
    return sheet(family, list(batch["image"].split(1)), family.styles_of(batch)[:styles], data.size)
