"""Inputs of a deployable network: of a run's held-out pictures, and of seeds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from launch.evaluation.driver import own_pictures, stream_of
from lightning_modules.core.deployment import Deployable, Port
from lightning_modules.metrics.evaluator import Pictures


class Samples:
    """Inputs number 0, 1 ... of a seed, one after the other; free sizes are each time others.

    Args:
        deployable: whose inputs.
        data: data module of the held-out pictures; None: pictures are made up.
        dynamic: whether sizes and numbers of pictures are free.
    """

    def __init__(self, deployable: Deployable, data: ShardData | None, *, dynamic: bool) -> None:
        self.deployable, self.data, self.dynamic = deployable, data, dynamic
        self.takes_pictures = any(port.pictures for port in deployable.inputs.values())

    def __call__(self, count: int, *, seed: int, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """Inputs of samples ``first`` to ``first + count - 1``, as many at a time as the network takes.

        Args:
            count: number of samples.
            seed: of what is drawn.
            first: number of the first.
        """
        streams = {
            name: islice(self._pictures(port, seed), first, None)
            for name, port in self.deployable.inputs.items()
            if port.pictures
        }
        free_count = self.dynamic and any("batch" in port.axes.values() for port in self.deployable.inputs.values())
        number = first
        while number < first + count:
            # 3, 1, 3, 1 ...: a single one is what tracers get wrong.
            size = (1 if (number - first) % 4 == 3 else 3) if free_count else 1
            size = min(size, first + count - number)
            chosen = {name: torch.cat(list(islice(stream, size))) for name, stream in streams.items()}
            index = torch.arange(number, number + size)
            pictures = {name: self._sized(self.deployable.inputs[name], x, number) for name, x in chosen.items()}
            yield self.deployable.draw(index, seed, pictures)
            number += size

    def _sized(self, port: Port, pictures: Tensor, number: int) -> Tensor:
        """Pictures [N, C, H, W] of the port's size, or where it is free of another one each time."""
        height, width = port.example.shape[2:]
        if self.dynamic and 2 in port.axes:
            # The traced one, a wider one, a higher one; odd where that is possible.
            step = port.multiple if port.multiple > 1 else 13
            height, width = height + step * (number % 3 == 2), width + step * (number % 3 == 1)
        if pictures.shape[2:] == (height, width):
            return pictures
        return F.interpolate(pictures, (height, width), mode="bilinear", antialias=True).clamp(-1, 1)

    def _pictures(self, port: Port, seed: int) -> Iterator[Tensor]:
        """Pictures [1, C, H, W] in [-1, 1]: held-out ones, again and again, or made-up ones."""
        if self.data is None:
            yield from _made_up(port, seed)
            return
        stream = stream_of(self.data, Pictures(port.pictures))
        samples = stream.manifest.split(stream.held_out_split).samples
        batches = own_pictures(stream, None, samples, 0, 1, 8)
        floats = (to_float(batch["image"]) for _, batch in batches if batch is not None)
        yield from cycle(image for images in floats for image in images.split(1))


def _made_up(port: Port, seed: int) -> Iterator[Tensor]:
    """Soft colours with some noise."""
    _, channels, height, width = port.example.shape
    generator = torch.Generator().manual_seed(seed)
    while True:
        coarse = torch.randn(1, channels, 6, 6, generator=generator)
        soft = F.interpolate(coarse, (height, width), mode="bicubic")
        yield (soft / 2 + torch.randn(soft.shape, generator=generator) / 20).clamp(-1, 1)
