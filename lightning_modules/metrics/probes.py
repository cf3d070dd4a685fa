"""Metrics that ask a generator for particular images: of paths between latents, of moved and turned inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, cast

import torch
from torch import Tensor

from lightning_modules.metrics import equivariance, specs
from lightning_modules.metrics.diversity import PAIRS, Diversity
from lightning_modules.metrics.equivariance import Equivariance
from lightning_modules.metrics.path_length import PathLength
from lightning_modules.networks.lpips import LPIPS

#: Names of the path lengths, with their space and sampling.
PATHS: dict[str, tuple[Literal["z", "w"], Literal["full", "end"]]] = {
    "ppl": ("w", "end"),
    "ppl_wfull": ("w", "full"),
    "ppl_zend": ("z", "end"),
    "ppl_zfull": ("z", "full"),
}
#: Needs held-out pictures, too.
DIVERSITY = "diversity"
#: Those of moved and turned inputs.
MOVES = ("eqt", "eqr")


class Probed(Protocol):
    """A generator that can be asked; methods that it has no ability for are not called: see ``Abilities``."""

    def abilities(self) -> Collection[str]:
        """Names of its abilities."""
        ...

    def on_path(self, index: Tensor, times: Tensor, *, seed: int, space: Literal["z", "w"]) -> Tensor:
        """See ``Abilities.on_path``."""
        ...

    def transformed(self, index: Tensor, transforms: Tensor, *, seed: int) -> Tensor:
        """See ``Abilities.transformed``."""
        ...


class Probes:
    """Measures path lengths, diversity and equivariance of a family.

    Args:
        family: the generator.
        names: keys of ``PATHS``, of ``MOVES``, and ``DIVERSITY``.
        num_samples: number of paths, and of images that are moved and turned, over all ranks.
        seed: of the sequence of samples.
        files: of the published weights ``vgg16_lpips``, if there is any but ``MOVES`` among the names.
        device: of the networks.
    """

    def __init__(
        self,
        family: Probed,
        names: Sequence[str],
        *,
        num_samples: int,
        seed: int,
        files: Mapping[str, Path],
        device: torch.device,
    ) -> None:
        self._paths: dict[str, PathLength] = {}
        asked = [name for name in PATHS if name in names]
        diverse = DIVERSITY in names
        lpips = LPIPS(files["vgg16_lpips"]).to(device) if asked or diverse else None
        for name in asked:
            assert lpips is not None
            space, sampling = PATHS[name]
            walk = partial(family.on_path, seed=seed, space=space)
            self._paths[name] = PathLength(walk, lpips, sampling, num_samples=num_samples, seed=seed).to(device)
        self._diversity: Diversity | None = None
        if diverse and lpips is not None:
            self._diversity = Diversity(partial(family.on_path, seed=seed, space="z"), lpips).to(device)
        self._num_samples = num_samples
        moves = cast("list[equivariance.Name]", [name for name in MOVES if name in names])
        render = partial(family.transformed, seed=seed)
        self._moves = Equivariance(render, moves, seed=seed).to(device) if moves else None

    @property
    def settings(self) -> dict[str, dict[str, int]]:
        """The side in pixels at which each path length compares images; known after the first ``update``."""
        pairs = {DIVERSITY: {"pairs": min(PAIRS, self._num_samples)}} if self._diversity is not None else {}
        return {**{name: {"side": metric.side} for name, metric in self._paths.items() if metric.side}, **pairs}

    def begin(self, held_out: Mapping[str, Tensor]) -> None:
        """Receives held-out pictures, a batch, where diversity is measured."""
        if self._diversity is not None:
            self._diversity.begin(held_out)

    def update(self, index: Tensor) -> None:
        """Makes and measures images; ``index``: int64 [N], each comes once over all ranks and batches."""
        for metric in self._metrics():
            metric.update(index)

    def compute(self) -> dict[str, float]:
        """The metrics over all ranks, by full name."""
        found = {next(iter(specs.find(name).names(""))): metric.compute() for name, metric in self._paths.items()}
        if self._diversity is not None:
            spec = specs.find(DIVERSITY)
            found |= {spec.full_name(name, ""): value for name, value in self._diversity.compute().items()}
        return {**found, **(self._moves.compute() if self._moves is not None else {})}

    def reset(self) -> None:
        """Removes all images."""
        for metric in self._metrics():
            metric.reset()

    def _metrics(self) -> list[PathLength | Diversity | Equivariance]:
        others = [metric for metric in (self._diversity, self._moves) if metric is not None]
        return [*self._paths.values(), *others]
