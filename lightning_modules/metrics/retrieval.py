"""Whether codes find the same painting again from another part of it, and the class among the nearest others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.core.abilities import Batch
from lightning_modules.core.frozen import Frozen
from lightning_modules.metrics.evaluator import EvaluationOptions, Pictures, TableEvaluator
from lightning_modules.metrics.features import measuring
from lightning_modules.metrics.statistics import SumMetric
from lightning_modules.networks.style_head import STATISTICS, style_statistics
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.crops import quarters

#: Neighbours that vote for a class.
NEIGHBOURS = 5
#: Which quarter of a picture is looked for, and by which: those that touch in a corner alone.
PAIRS = ((0, 1), (1, 0), (2, 3), (3, 2))


def retrieval(codes: Tensor) -> tuple[float, float]:
    """How often a quarter's nearest, among the opposite quarters of all pictures, is of its own picture.

    Args:
        codes: [N, 4, D], of ``quarters``; compared by their cosine.

    Returns:
        The share, from 1 / N by chance to 1, and the mean of 1 / rank. Of equally near ones the own comes last.

    Example:
        >>> retrieval(torch.eye(3)[:, None].expand(3, 4, 3))
        (1.0, 1.0)
    """
    codes = F.normalize(codes.double(), dim=2)
    ranks = []
    for query, wanted in PAIRS:
        likeness = codes[:, query] @ codes[:, wanted].T
        ranks.append((likeness >= likeness.diagonal()[:, None]).sum(1))
    rank = torch.stack(ranks).double()
    return (rank == 1).double().mean().item(), (1 / rank).mean().item()


def neighbours_accuracy(codes: Tensor, labels: Tensor, *, neighbours: int = NEIGHBOURS) -> float:
    """How often the class that most of the nearest others have is a picture's own (of equals the smallest number).

    Args:
        codes: [N, D]; compared by their cosine.
        labels: int64 [N], 0 or more.
        neighbours: how many others vote, fewer where there are fewer.
    """
    codes = F.normalize(codes.double(), dim=1)
    likeness = (codes @ codes.T).fill_diagonal_(-torch.inf)
    nearest = labels[likeness.topk(min(neighbours, len(codes) - 1), dim=1).indices]
    votes = F.one_hot(nearest, int(labels.max()) + 1).sum(1)
    return (votes.argmax(1) == labels).double().mean().item()


class Codes(SumMetric):
    """Collects codes of the quarters of pictures, and the pictures' labels, over all ranks.

    Args:
        pictures: number of pictures over all ranks.
        lengths: length of a code, by name of what gives it.
    """

    labels: Tensor
    count: Tensor

    def __init__(self, pictures: int, lengths: Mapping[str, int]) -> None:
        super().__init__()
        self.kinds = tuple(lengths)
        # Every rank fills the rows of its own pictures; the sum over ranks is then their union.
        for name, length in lengths.items():
            self.add_sum(f"codes_{name}", pictures, 4, length, dtype=torch.float32)
        self.add_sum("labels", pictures, dtype=torch.int64)
        self.add_sum("count", pictures, dtype=torch.int64)

    def update(self, codes: Mapping[str, Tensor], labels: Tensor, index: Tensor) -> None:
        """Adds pictures: codes [N, 4, D] by name, labels int64 [N] (-1: none), numbers int64 [N], each once."""
        for name, values in codes.items():
            getattr(self, f"codes_{name}")[index] = values.float()
        self.labels[index] = labels
        self.count[index] += 1

    def compute(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Codes [N, 4, D] and labels [N] by name, over all ranks."""
        there = self.count > 0
        return {name: (getattr(self, f"codes_{name}")[there], self.labels[there]) for name in self.kinds}


class Coding(Protocol):
    """A family with codes of pictures."""

    def codes(self, images: Tensor) -> Tensor:
        """See ``Abilities.codes``."""
        ...

    def described(self) -> str:
        """See ``Abilities.described``."""
        ...


class CodesEvaluator(TableEvaluator):
    """Evaluates codes of held-out pictures by what they find, beside raw statistics of VGG19.

    Args:
        family: what gives the codes.
        options: of the evaluation; there are never more samples than held-out pictures.
        code_dim: length of a code.
    """

    def __init__(self, family: Coding, options: EvaluationOptions, *, code_dim: int) -> None:
        super().__init__("embedding", options, family.described(), ("codes",))
        self.family, self.code_dim = family, code_dim
        self.source = Pictures(split=options.split)
        self._vgg: Frozen[VGG19] | None = None
        self._codes: Codes | None = None

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        pictures = {"pictures": self.num_samples}
        own = {"retrieval": pictures, "neighbours": {**pictures, "k": NEIGHBOURS}}
        return {name: own[name] for name in self.own}

    def load(self, files: Mapping[str, Path], device: torch.device) -> None:
        """See ``Evaluator``."""
        super().load(files, device)
        if self.own:
            self._vgg = Frozen(VGG19(files["vgg19_normalized"])).to(device)

    def begin(self, examples: Batch, available: int) -> None:
        """See ``Evaluator``."""
        self.num_samples = min(self.options.num_samples, available)
        if self.num_samples < 2:
            raise ValueError(f"{self.options.option}: one held-out picture has no other to be told from: take more")
        self._codes = Codes(self.num_samples, {"learned": self.code_dim, "raw": STATISTICS}).to(self.device)

    def update(self, index: Tensor, batch: Batch | None) -> None:
        """See ``Evaluator``."""
        assert batch is not None
        assert self._codes is not None
        assert self._vgg is not None
        images = batch["image"]
        parts = quarters(images).flatten(0, 1)
        codes = {"learned": self.family.codes(parts)}
        with measuring(parts.device):
            codes["raw"] = style_statistics(self._vgg.network, parts)
        labels = torch.as_tensor(batch.get("label", -torch.ones(len(images)))).long().to(self.device)
        by_picture = {name: values.unflatten(0, (-1, 4)) for name, values in codes.items()}
        self._codes.update(by_picture, labels, index.to(self.device))

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        assert self._codes is not None
        found = super().compute()
        for name, (codes, labels) in self._codes.compute().items():
            raw = "raw_" if name == "raw" else ""
            if "retrieval" in self.own:
                found[f"{raw}retrieval"], found[f"{raw}retrieval_mrr"] = retrieval(codes)
            if "neighbours" in self.own:
                if (labels < 0).any():
                    raise ValueError(f"{self.options.option}: neighbours needs pictures of classes: leave it out")
                # A picture's code is the mean of its quarters'.
                found[f"{raw}neighbours"] = neighbours_accuracy(codes.mean(1), labels)
        return found

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        self._codes = None
