"""Means of the losses between two lines of a training's log; what is summed up so far is part of the training's state.

Otherwise the first mean after an interruption would be of the steps after it alone, and the curve of a training that
was interrupted another one than that of a training that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import torch
from torch import Tensor


class SavedSum(TypedDict):
    """What a checkpoint holds of one loss: how many values, and their sum on each rank."""

    count: int
    sums: list[float]


class LossMeans:
    """Sums of each loss since they were last taken; they stay on the device: reading one would wait for it."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._device = torch.device("cpu")

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one value of each of some losses."""
        for name, value in values.items():
            total, count = self._sums.get(name, (None, 0))
            if total is None:
                total = torch.zeros((), dtype=torch.float32, device=value.device)
            self._device = value.device
            self._sums[name] = (total.to(value.device), count + 1)
        # One call for all of them.
        torch._foreach_add_([self._sums[name][0] for name in values], list(values.values()))

    def take(self, mean_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means of all losses since the last call; empties the sums.

        Args:
            mean_over_ranks: of a tensor, called once where there are any losses.
        """
        sums, self._sums = self._sums, {}
        if not sums:
            return {}
        # Sums that were loaded may still lie on the CPU.
        means = torch.stack([sums[name][0].to(self._device) / sums[name][1] for name in sorted(sums)])
        return dict(zip(sorted(sums), mean_over_ranks(means).tolist(), strict=True))

    def saved(self, gather: Callable[[Tensor], Tensor]) -> dict[str, SavedSum]:
        """The sums as plain data, rank by rank.

        Args:
            gather: float32 [losses] of every rank as [ranks, losses], called once where there are any losses.
        """
        if not self._sums:
            return {}
        names = sorted(self._sums)
        by_rank = gather(torch.stack([self._sums[name][0].to(self._device) for name in names])).reshape(-1, len(names))
        return {
            name: {"count": self._sums[name][1], "sums": sums}
            for name, sums in zip(names, by_rank.T.tolist(), strict=True)
        }

    def load(self, saved: Mapping[str, SavedSum], *, rank: int, ranks: int) -> None:
        """Goes on from what ``saved`` returned, maybe on another number of ranks: the mean over ranks stays."""
        self._sums = {}
        for name, entry in saved.items():
            sums = entry["sums"]
            total = sums[rank] if len(sums) == ranks else sum(sums) / len(sums)
            self._sums[name] = (torch.tensor(total, dtype=torch.float32), entry["count"])
