"""How much codes tell of the known factors of pictures, and whether each factor has one latent of its own (MIG)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lightning_modules.core.abilities import Batch
from lightning_modules.metrics.evaluator import EvaluationOptions, GenerationEvaluator, Pictures
from lightning_modules.metrics.probes import Probed
from lightning_modules.metrics.statistics import SumMetric

#: Each latent's values are counted in so many bins of one width (Locatello et al. 2019, arXiv:1811.12359).
BINS = 20
_FACTOR = re.compile(r"([A-Za-z_]\w*)=(\d{1,9})")


def factors_of(caption: str) -> dict[str, int]:
    """The factors of a picture, of its caption.

    Raises:
        ValueError: it tells none.

    Example:
        >>> factors_of("shape=2 x=15")
        {'shape': 2, 'x': 15}
    """
    found = [_FACTOR.fullmatch(word) for word in caption.split()]
    factors = {match[1]: int(match[2]) for match in found if match is not None}
    if not found or len(factors) < len(found):
        raise ValueError(f"caption {caption!r} tells no factors: they are NAME=NUMBER with spaces between")
    return factors


def mutual_information(codes: Tensor, factors: Tensor, *, bins: int = BINS) -> tuple[Tensor, Tensor]:
    """Mutual information of each latent, in bins, and each factor, in nats.

    Args:
        codes: float [N, D].
        factors: int64 [N, F], values from 0.
        bins: number of bins between a latent's smallest and largest value.

    Returns:
        Float64: the mutual information [D, F], and the entropies of the factors [F].
    """
    binned = _binned(codes, bins)
    values = int(factors.max()) + 1
    # [D, F, bins, values]: how often a latent is in a bin where a factor has a value.
    counts = torch.zeros(binned.shape[1], factors.shape[1], bins * values, dtype=torch.float64, device=codes.device)
    for latent, column in enumerate(binned.T):
        places = (column[:, None] * values + factors).T
        counts[latent].scatter_add_(1, places, torch.ones_like(places, dtype=torch.float64))
    joint = counts.unflatten(2, (bins, values)) / len(codes)
    of_factors = _entropy(joint.sum(2))
    return _entropy(joint.sum(3)) + of_factors - _entropy(joint.flatten(2)), of_factors[0]


def mutual_information_gap(codes: Tensor, factors: Tensor, *, bins: int = BINS) -> float:
    """MIG: by how much the latent that tells most of a factor tells more than the next one, of the factor's entropy.

    A mean over the factors that vary, in [0, 1] (Chen et al. 2018, arXiv:1802.04942); see ``mutual_information``.

    Raises:
        ValueError: no factor varies.
    """
    information, entropies = mutual_information(codes, factors, bins=bins)
    varying = entropies > 0
    if not varying.any():
        raise ValueError("mig: no factor of these pictures varies")
    # A single latent has no rival.
    padded = torch.cat([information, torch.zeros_like(information[:1])])
    first, second = padded[:, varying].topk(2, dim=0).values
    return float(((first - second) / entropies[varying]).mean())


def _binned(codes: Tensor, bins: int) -> Tensor:
    """Bins of codes, int64 [N, D]: as numpy.histogram's, the last one closed."""
    wide = codes.double()
    low, high = wide.amin(0), wide.amax(0)
    width = torch.where(high > low, high - low, torch.ones_like(low))
    return ((wide - low) / width * bins).long().clamp(max=bins - 1)


def _entropy(probability: Tensor) -> Tensor:
    return -torch.xlogy(probability, probability).sum(-1)


class Encoding(Probed, Protocol):
    """A generator that encodes pictures into vectors."""

    def codes(self, images: Tensor) -> Tensor:
        """See ``Abilities.codes``."""
        ...


class FactorInformation(SumMetric):
    """Collects codes and factors of pictures over all ranks.

    Args:
        pictures: number of pictures over all ranks.
        code_dim: length of a code.
        names: the factors.
    """

    codes: Tensor
    factors: Tensor
    count: Tensor

    def __init__(self, pictures: int, code_dim: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        # Every rank fills the rows of its own pictures; the sum over ranks is then their union.
        self.add_sum("codes", pictures, code_dim, dtype=torch.float32)
        self.add_sum("factors", pictures, len(self.names), dtype=torch.int64)
        self.add_sum("count", pictures, dtype=torch.int64)

    def update(self, codes: Tensor, captions: Sequence[str], index: Tensor) -> None:
        """Adds pictures.

        Args:
            codes: float [N, code_dim].
            captions: N captions that tell the factors.
            index: int64 [N]; each once over all batches and ranks.

        Raises:
            ValueError: a caption tells no factors, or others.
        """
        rows = []
        for caption in captions:
            found = factors_of(caption)
            if found.keys() != set(self.names):
                raise ValueError(f"caption {caption!r} tells other factors than {', '.join(self.names)}")
            rows.append([found[name] for name in self.names])
        self.codes[index] = codes.float()
        self.factors[index] = torch.tensor(rows, device=index.device)
        self.count[index] += 1

    def compute(self) -> float:
        """MIG over all ranks; raises a ValueError without pictures or where no factor varies."""
        there = self.count > 0
        if not there.any():
            raise ValueError("mig: there are no pictures")
        return mutual_information_gap(self.codes[there], self.factors[there])


class EncodingEvaluator(GenerationEvaluator):
    """Evaluates generated images, and for ``mig`` the codes of held-out images whose factors are known.

    Args:
        make: as of ``GenerationEvaluator``.
        options: of the evaluation; codes are of as many held-out images as there are, ``num_samples`` at most.
        what: the family in error messages, such as ``a VAE``.
        family: the generator, which has ``codes``.
        code_dim: length of a code.
    """

    def __init__(
        self,
        make: Callable[[Tensor, Batch | None], Tensor],
        options: EvaluationOptions,
        what: str,
        *,
        family: Encoding,
        code_dim: int,
    ) -> None:
        super().__init__(make, options, what, family=family)
        self._encode, self.code_dim = family.codes, code_dim
        if "mig" in self._probed:
            self._probed = [name for name in self._probed if name != "mig"]
            self.source = Pictures(split=options.split)
            # Its caption names the factors.
            self.examples = 1
        self._generates = bool(self._of_sets or self._probed or self.foreign)
        self._pictures = 0
        self._information: FactorInformation | None = None

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """See ``Evaluator``."""
        mig = {} if self._information is None else {"mig": {"bins": BINS, "pictures": self._pictures}}
        return {**super().settings, **mig}

    def begin(self, examples: Batch, available: int) -> None:
        """See ``Evaluator``."""
        super().begin(examples, available)
        if self.source is None:
            return
        # Each picture is encoded once.
        self._pictures = min(self.options.num_samples, available)
        if not self._generates:
            self.num_samples = self._pictures
        information = FactorInformation(self._pictures, self.code_dim, list(factors_of(examples["caption"][0])))
        self._information = information.to(self.device)

    def update(self, index: Tensor, batch: Batch | None) -> None:
        """See ``Evaluator``."""
        super().update(index, batch)
        if self._information is None or batch is None:
            return
        first = index < self._pictures
        if first.any():
            captions = [caption for caption, kept in zip(batch["caption"], first.tolist(), strict=True) if kept]
            codes = self._encode(batch["image"][first.to(batch["image"].device)])
            self._information.update(codes, captions, index[first].to(codes.device))

    def compute(self) -> dict[str, float]:
        """See ``Evaluator``."""
        found = super().compute()
        return found if self._information is None else {**found, "mig": self._information.compute()}

    def reset(self) -> None:
        """See ``Evaluator``."""
        super().reset()
        self._information = None
