"""Pictures out of a generator's space W: edits along a direction, mixed styles, truncation, paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from launch.inference.w_files import Directions
from lightning_modules.kinds.w_space import WSpace


class Sources:
    """Latents to edit: samples of a run, or projected pictures.

    Args:
        space: of the generator.
        count: of samples.
        seed: of their sequence.
        label: their class; None: as ``generate`` chooses.
        projected: [N, num_ws, w_dim], in place of samples.
        batch_size: samples made at a time: as with ``generate``, so that pictures are the same to the bit.
    """

    def __init__(
        self,
        space: WSpace,
        count: int,
        *,
        seed: int = 0,
        label: Tensor | None = None,
        projected: Tensor | None = None,
        batch_size: int = 64,
    ) -> None:
        self.space, self.seed, self.label = space, seed, label
        self.projected, self.batch_size = projected, batch_size
        self.count = count if projected is None else len(projected)

    def batches(self) -> list[Tensor]:
        """The latents [n, num_ws, w_dim] of each batch."""
        if self.projected is not None:
            return list(self.projected.split(self.batch_size))
        return [
            self.space.layers(
                self.space.sampled(
                    index, seed=self.seed, labels=None if self.label is None else self.label.expand(len(index))
                )
            )
            for index in torch.arange(self.count).split(self.batch_size)
        ]

    @torch.no_grad()
    def pictures(self, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Pictures [N, C, H, W] in [-1, 1], on the CPU, of all latents after a change of them."""
        return torch.cat([pictures_of(self.space, change(ws)) for ws in self.batches()])


def pictures_of(space: WSpace, ws: Tensor) -> Tensor:
    """Pictures in [-1, 1], on the CPU, of latents [N, num_ws, w_dim]."""
    return space.images(ws).clamp(-1, 1).cpu()


def moved(
    ws: Tensor, directions: Directions, number: int, amount: float, layers: tuple[int, int] | None = None
) -> Tensor:
    """Latents [N, num_ws, w_dim] moved by ``amount`` standard deviations of w along a direction.

    Args:
        ws: the latents.
        directions: in whose file the direction is.
        number: which one.
        amount: how far; 0: the same latents, to the bit.
        layers: the first and last layer that move; None: those that the direction is for.
    """
    step = (directions.vectors[number] * directions.spreads[number] * amount).to(ws)
    first, last = layers or directions.layers or (0, ws.shape[1] - 1)
    mask = torch.zeros(ws.shape[1], 1, dtype=ws.dtype, device=ws.device)
    mask[first : last + 1] = 1
    return ws + mask * step


def strip(
    sources: Sources,
    directions: Directions,
    number: int,
    amounts: Sequence[float],
    layers: tuple[int, int] | None = None,
) -> Tensor:
    """Pictures of all sources at each amount: [sources, amounts, C, H, W]."""
    columns = [
        sources.pictures(lambda ws, by=amount: moved(ws, directions, number, by, layers))  # type: ignore[misc]
        for amount in amounts
    ]
    return torch.stack(columns, 1)


@torch.no_grad()
def mixed(sources: Sources, layers: tuple[int, int]) -> Tensor:
    """Style mixing (Karras et al. 2019, fig. 3): each row's picture with some layers' w of each column's.

    Args:
        sources: the first half is rows, the second half columns.
        layers: the first and last layer that columns give.

    Returns:
        [(rows + 1) (columns + 1), C, H, W], row by row: the corner is white, the first row and column are the sources.
    """
    ws = torch.cat(sources.batches())
    rows, columns = ws[: len(ws) // 2], ws[len(ws) // 2 :]
    first, last = layers
    heads = pictures_of(sources.space, columns)
    lines = [torch.cat([torch.ones_like(heads[:1]), heads])]
    for row in rows:
        both = row.expand(len(columns), -1, -1).clone()
        both[:, first : last + 1] = columns[:, first : last + 1]
        lines.append(pictures_of(sources.space, torch.cat([row[None], both])))
    return torch.cat(lines)


@torch.no_grad()
def path(sources: Sources, frames: int) -> Tensor:
    """A closed path through W from each source to the next, on straight lines: [sources x frames, C, H, W]."""
    ws = torch.cat(sources.batches())
    ahead = ws.roll(-1, 0)
    t = torch.arange(frames, dtype=ws.dtype, device=ws.device)[None, :, None, None] / frames
    line = (ws[:, None] + (ahead - ws)[:, None] * t).flatten(0, 1)
    return torch.cat([pictures_of(sources.space, part) for part in line.split(sources.batch_size)])
