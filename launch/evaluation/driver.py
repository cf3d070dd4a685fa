"""Runs an evaluator: loads weights and references, then passes each sample or held-out picture once over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from datamodules.shards import ShardData
from gesso.common.text import counted
from launch.evaluation.references import held_out, on_device, reference
from lightning_modules.metrics import specs
from lightning_modules.metrics.evaluator import Evaluator, Pictures

#: Indices of the pictures, int64 [n], and their batch if the evaluator needs one.
Step = tuple[Tensor, dict[str, Any] | None]


def prepare(
    evaluator: Evaluator,
    data: ShardData | None,
    device: torch.device,
    *,
    sources: ShardData | None = None,
    progress: bool = False,
    rank: int = 0,
    world_size: int = 1,
    option: str = "evaluation.metrics",
) -> None:
    """Builds an evaluator's networks, downloading weights if needed, and passes it the statistics of real pictures.

    Args:
        evaluator: the evaluator.
        data: data module of the real pictures; None where ``needs_data`` says that it takes none.
        device: of the networks.
        sources: data module of the pictures that are measured, where it is another one.
        progress: whether to show a bar while features of real pictures are computed.
        option: the option with the metrics' names, for error messages.

    Raises:
        ValueError: the data has no such pictures, or there are too few of them for a metric.
    """
    check_enough(evaluator, data, sources=sources, option=option)
    load(evaluator, device)
    for pictures in evaluator.references:
        assert evaluator.extractor is not None
        statistics = reference(
            stream_of(data, pictures),
            pictures.split or stream_of(data, pictures).held_out_split,
            evaluator.extractor,
            limit=pictures.limit,
            label=pictures.label,
            progress=progress,
            rank=rank,
            world_size=world_size,
        )
        evaluator.take_reference(pictures, statistics)


def load(evaluator: Evaluator, device: torch.device) -> None:
    """Builds an evaluator's networks, downloading weights if needed.

    Raises:
        ValueError: a metric cannot be measured with these weights.
    """
    evaluator.load({name: fetch(name) for name in evaluator.weights}, device)


def needs_data(evaluator: Evaluator) -> bool:
    """Whether an evaluator takes any real pictures."""
    return bool(evaluator.references or evaluator.source is not None or evaluator.examples)


def check_enough(
    evaluator: Evaluator, data: ShardData | None, *, sources: ShardData | None = None, option: str
) -> None:
    """Checks, before anything is loaded or made, that there will be enough pictures for each metric.

    Args:
        evaluator: the evaluator.
        data: data module of the real pictures.
        sources: data module of the pictures that are measured, where it is another one.
        option: the option with the metrics' names.

    Raises:
        ValueError: the data has no such pictures, or there are too few; names the metrics and the remedy.
    """
    truths_of(evaluator, sources or data)
    _check_factors(evaluator, sources or data, option)
    least: dict[str, int] = {}
    for name in evaluator.names:
        if (known := specs.quantity(name)) is not None and known[0].least:
            least[known[0].name] = known[0].least
    made = evaluator.num_samples
    if evaluator.source is not None:
        stream = stream_of(sources or data, evaluator.source)
        made = min(made, stream.manifest.split(evaluator.source.split or stream.held_out_split).samples)
    sides = [(made, counted(made, "made picture" if sources is None else "measured picture"), "take more")]
    for real in compared_with(evaluator, data):
        named = f"{counted(real['images'], 'reference picture')} (of {real['name']}, split {real['split']})"
        sides.append((real["images"], named, "compare with more"))
    for count, what, more in sides:
        if short := [name for name, number in least.items() if count < number]:
            number, names = max(least[name] for name in short), " and ".join(short)
            raise ValueError(
                f"{option}: {names} cannot be measured of {what}, {number} or more are needed: {more}, or leave "
                f"{names} out"
            )


def _check_factors(evaluator: Evaluator, data: ShardData | None, option: str) -> None:
    found = (specs.quantity(name) for name in evaluator.names)
    wanting = dict.fromkeys(known[0].name for known in found if known is not None and known[0].factors)
    if wanting and evaluator.source is not None and not (stream := stream_of(data, evaluator.source)).manifest.captions:
        raise ValueError(
            f"{option}: {' and '.join(wanting)} needs pictures whose captions tell their factors, such as those of "
            f"`gesso shards build sprites`; {stream.path} has no captions"
        )


@torch.no_grad()
def score(
    evaluator: Evaluator,
    data: ShardData | None,
    device: torch.device,
    *,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int], None] = lambda pictures: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Measures the metrics of a prepared evaluator; the same for any number of ranks.

    Args:
        evaluator: after ``prepare``.
        data: data module of the held-out pictures; None where ``needs_data`` says that it takes none.
        device: of the family.
        progress: called with the number of pictures made on all ranks since the last call.
        interrupted: whether to stop; called before every batch, equally often on every rank.

    Returns:
        The metrics by full name; empty if interrupted.
    """
    evaluator.reset()
    available = 0
    if evaluator.source is not None:
        stream = stream_of(data, evaluator.source)
        available = stream.manifest.split(evaluator.source.split or stream.held_out_split).samples
    examples = held_out(data, evaluator.examples, device) if evaluator.examples and data is not None else {}
    evaluator.begin(examples, available)
    count, size = evaluator.num_samples, evaluator.batch_size
    batches: Iterator[Step]
    if evaluator.source is None:
        steps = -(-count // (world_size * size))
        batches = own_indices(count, rank, world_size, size)
    else:
        steps = steps_of_a_rank(count, available, world_size, size)
        batches = own_pictures(stream, evaluator.source.split, count, rank, world_size, size)
    truths = truths_of(evaluator, data)
    for _ in range(steps):
        if interrupted():
            return {}
        # Some ranks have a batch less in each round through the pictures.
        if (found := next(batches, None)) is not None:
            index, batch = found
            if truths is not None and batch is not None:
                batch = {**batch, "truth": truths(batch["caption"])}
            evaluator.update(index, None if batch is None else on_device(batch, ["image", "truth"], device))
            progress(len(index) * world_size)
    return evaluator.compute()


def truths_of(evaluator: Evaluator, data: ShardData | None) -> Callable[[Sequence[str]], Tensor] | None:
    """What finds, by their captions, what pictures are to become; None: the evaluator does not ask.

    Raises:
        ValueError: it is not known.
    """
    if not evaluator.truth or evaluator.source is None or data is None:
        return None
    return data.true_pictures(evaluator.source.key, evaluator.source.split)


def stream_of(data: ShardData | None, pictures: Pictures) -> ShardData:
    """The data module's stream of these pictures, never of their latents; raises a ValueError if there is none."""
    streams = data.streams() if data is not None else {}
    if pictures.key not in streams:
        raise ValueError(
            f"the evaluation wants pictures {pictures.key!r}, and {type(data).__name__} has {', '.join(streams)}"
        )
    return streams[pictures.key].pictures


def compared_with(evaluator: Evaluator, data: ShardData | None) -> list[dict[str, Any]]:
    """The real pictures that an evaluator compares with: name of the set, split, how many images there are, size."""
    found = []
    for pictures in evaluator.references:
        stream = stream_of(data, pictures)
        split = pictures.split or stream.held_out_split
        images = stream.number_of(split, pictures.label)
        images = min(pictures.limit or images, images)
        of_class = {} if pictures.label is None else {"label": pictures.label}
        found.append({"name": stream.manifest.name, "split": split, "images": images, "size": stream.size, **of_class})
    return found


def own_indices(count: int, rank: int, world_size: int, batch_size: int) -> Iterator[Step]:
    """This rank's share of the indices 0 to ``count`` - 1, in batches."""
    own = torch.arange(rank, count, world_size)
    for first in range(0, len(own), batch_size):
        yield own[first : first + batch_size], None


def own_pictures(
    data: ShardData, split: str | None, count: int, rank: int, world_size: int, batch_size: int
) -> Iterator[Step]:
    """This rank's share of ``count`` pictures of a split, repeated if there are fewer, in batches.

    Args:
        split: None: the held-out one.

    Yields:
        The pictures' indices, int64 [n], and their batch: ``image`` uint8 [n, C, H, W], ``label`` ...
    """
    split = split or data.held_out_split
    first = 0
    while first < count:
        limit = min(data.manifest.split(split).samples, count - first)
        number = first + rank
        for batch in data.split_batches(split, rank=rank, world_size=world_size, batch_size=batch_size, limit=limit):
            numbers = number + world_size * torch.arange(len(batch["image"]))
            yield numbers, batch
            number = int(numbers[-1]) + world_size
        first += limit


def steps_of_a_rank(count: int, pictures: int, world_size: int, batch_size: int) -> int:
    """Number of batches from ``own_pictures`` on rank 0, which has most, for ``count`` of ``pictures`` pictures."""
    rounds, rest = divmod(count, pictures)
    per_step = world_size * batch_size
    return rounds * -(-pictures // per_step) + -(-rest // per_step)
