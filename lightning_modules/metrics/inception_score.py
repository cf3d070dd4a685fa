"""Inception Score (Salimans et al. 2016), computed in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.metrics.statistics import SumMetric


class InceptionScore(SumMetric):
    """exp of the mean KL divergence between p(class | image) and p(class), mean and standard deviation over splits.

    The sums over a split suffice, so no logits are kept. Sample i of ``num_samples`` belongs to split
    i * splits // ``num_samples``, on whichever rank it comes; these are the consecutive splits of the paper's code.

    Args:
        num_classes: length of the logits.
        num_samples: number of samples over all ranks.
        splits: 10 in the paper; at most one per two samples.
    """

    count: Tensor
    probability: Tensor
    negative_entropy: Tensor

    def __init__(self, num_classes: int, *, num_samples: int, splits: int = 10) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.splits = max(1, min(splits, num_samples // 2))
        self.add_sum("count", self.splits)
        self.add_sum("probability", self.splits, num_classes)
        self.add_sum("negative_entropy", self.splits)

    def update(self, logits: Tensor, index: Tensor) -> None:
        """Adds ``logits`` float [N, classes] of the samples ``index`` int64 [N] in [0, ``num_samples``)."""
        split = index * self.splits // self.num_samples
        log_p = logits.double().log_softmax(dim=1)
        p = log_p.exp()
        self.count.index_add_(0, split, torch.ones_like(split, dtype=torch.float64))
        self.probability.index_add_(0, split, p)
        self.negative_entropy.index_add_(0, split, (p * log_p).sum(dim=1))

    def compute(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits that have samples.

        Raises:
            ValueError: no samples.
        """
        filled = self.count > 0
        if not filled.any():
            raise ValueError("the Inception Score needs samples; there were none")
        count = self.count[filled]
        marginal = self.probability[filled] / count[:, None]
        scores = (self.negative_entropy[filled] / count - torch.xlogy(marginal, marginal).sum(dim=1)).exp()
        return scores.mean().item(), scores.std(correction=0).item()
