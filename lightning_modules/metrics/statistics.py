"""Statistics of the features of an image set: computed in one pass, saved and loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchmetrics import Metric

from gesso.common.files import writing_whole

FORMAT = "gesso-feature-statistics-1"


class FeatureStatistics(NamedTuple):
    """Statistics of an image set that FID, KID and precision/recall need.

    Attributes:
        num_samples: number of samples, n.
        mean: float64 [D].
        cov: float64 [D, D], with divisor n - 1 as in the reference implementations.
        features: float32 [m, D], m <= n of the samples, evenly spaced over the set; None when none were kept.
        extractor: name of the extractor, which includes the resize.
        origin: data set, split and so on, for people.
    """

    num_samples: int
    mean: Tensor
    cov: Tensor
    features: Tensor | None
    extractor: str
    origin: Mapping[str, str] = MappingProxyType({})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file, atomically."""
        tensors = {"mean": self.mean, "cov": self.cov}
        if self.features is not None:
            tensors["features"] = self.features
        header = {
            "format": FORMAT,
            "num_samples": self.num_samples,
            "extractor": self.extractor,
            "origin": dict(self.origin),
        }
        with writing_whole(Path(path)) as partial:
            save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, partial, {"gesso": json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureStatistics:
        """Reads a file that ``save`` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no feature statistics here")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads(file.metadata()["gesso"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']!r}")
            return cls(
                header["num_samples"],
                tensors["mean"],
                tensors["cov"],
                tensors.get("features"),
                header["extractor"],
                header["origin"],
            )
        except (SafetensorError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not feature statistics, or damaged; delete it to compute it again") from error

    def to(self, device: torch.device) -> FeatureStatistics:
        """The same statistics on ``device``."""
        features = None if self.features is None else self.features.to(device)
        return self._replace(mean=self.mean.to(device), cov=self.cov.to(device), features=features)


class SumMetric(Metric):
    """Base of metrics whose states are all sums: each rank may have any number of samples.

    Ranks all-reduce each state; torchmetrics would gather every rank's copy of it first.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=_all_reduce)

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Adds the state ``name``, zero at first."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")


def _all_reduce(state: Tensor, group: Any = None) -> list[Tensor]:
    total = state.clone()
    dist.all_reduce(total, group=group)
    return [total]


class StatisticsAccumulator(SumMetric):
    """Computes ``FeatureStatistics`` in one pass; memory is O(D^2) and the kept features, for any number of samples.

    Of ``num_samples`` samples with indices 0 to ``num_samples`` - 1 at most ``cap`` are kept, evenly spaced, so that a
    set sorted by class is kept evenly too and the choice does not depend on the ranks.

    Args:
        feature_dim: D.
        extractor: name of the extractor.
        num_samples: number of samples over all ranks.
        cap: largest number of features to keep; 0: none.
    """

    count: Tensor
    total: Tensor
    outer: Tensor
    kept: Tensor
    kept_count: Tensor

    def __init__(self, feature_dim: int, extractor: str, *, num_samples: int, cap: int) -> None:
        super().__init__()
        if num_samples < 2:
            raise ValueError(f"feature statistics need at least 2 samples, not {num_samples}")
        self.extractor = extractor
        self.num_samples = num_samples
        self.slots = min(cap, num_samples)
        self.add_sum("count", dtype=torch.int64)
        self.add_sum("total", feature_dim)
        self.add_sum("outer", feature_dim, feature_dim)
        # Every rank fills the rows of its own samples; the sum over ranks is then their union.
        self.add_sum("kept", self.slots, feature_dim, dtype=torch.float32)
        self.add_sum("kept_count", self.slots, dtype=torch.int64)

    def update(self, features: Tensor, index: Tensor) -> None:
        """Adds ``features`` float [N, D] of the samples ``index`` int64 [N], distinct over all batches and ranks."""
        wide = features.double()
        self.count += len(features)
        self.total += wide.sum(dim=0)
        self.outer.addmm_(wide.T, wide)
        if self.slots:
            slot = index * self.slots // self.num_samples
            # Sample ceil(slot * num_samples / slots) is the first that falls into the slot.
            first = (slot * self.num_samples + self.slots - 1) // self.slots == index
            kept = first & (index >= 0) & (index < self.num_samples)
            self.kept.index_add_(0, slot[kept], features[kept].float())
            self.kept_count.index_add_(0, slot[kept], torch.ones_like(slot[kept]))

    def compute(self) -> FeatureStatistics:
        """The statistics over all ranks.

        Raises:
            ValueError: fewer than 2 samples, or a sample index came twice.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"feature statistics need at least 2 samples; there were {count}")
        if self.slots and int(self.kept_count.max()) > 1:
            raise ValueError("a sample was counted twice: sample indices must be distinct over all batches and ranks")
        mean = self.total / count
        cov = (self.outer - count * torch.outer(mean, mean)) / (count - 1)
        features = self.kept[self.kept_count > 0] if self.slots else None
        return FeatureStatistics(count, mean, cov, features, self.extractor)
