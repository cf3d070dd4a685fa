"""Batch norm: conditional on the class, and with the statistics of all ranks' images where that is asked for."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.folding import ClassAffine


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that can take the statistics of a batch over all ranks.

    With ``synchronised`` set, training on W ranks equals training on one with the whole batch (equal parts on every
    rank), on any backend and through a second differentiation; ``nn.SyncBatchNorm`` knows CUDA and one differentiation.
    """

    synchronised = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x`` ``[N, C, H, W]``; the result has its dtype."""
        if self.synchronised and self.training and dist.is_initialized() and dist.get_world_size() > 1:
            return self._over_ranks(x)
        return super().forward(x)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What eval mode does to each channel, x * scale + shift: float64 ``[C]``, or ``[num_classes, C]``."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = (self.running_var.double() + self.eps).rsqrt()
        shift = -self.running_mean.double() * scale
        if self.weight is None:
            return scale, shift
        return self.weight.double() * scale, self.weight.double() * shift + self.bias.double()

    def _over_ranks(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            var, mean = torch.var_mean(values, (0, 2, 3), correction=0)
            # Every rank's row, brought together; combined as Chan et al. (1979) do, which loses no digits.
            rows = torch.zeros(dist.get_world_size(), 2, len(mean), device=x.device)
            rows[dist.get_rank()] = torch.stack([mean, var])
            means, variances = SumOverRanks.apply(rows).unbind(1)
            mean = means.mean(0)
            var = (variances + (means - mean).square()).mean(0)
            self._follow(mean, var, count=x.numel() // x.shape[1] * dist.get_world_size())
            scale = torch.rsqrt(var + self.eps)
            scale = scale if self.weight is None else scale * self.weight
            normalised = (values - mean[:, None, None]) * scale[:, None, None]
            return (normalised if self.bias is None else normalised + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var), self.momentum)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)


class ConditionalBatchNorm2d(BatchNorm2d):
    """Batch norm whose scale and shift depend on the class (de Vries et al. 2017, arXiv:1707.00683).

    Args:
        features: C.
        num_classes: rows of ``scale`` and ``shift``, both ``[num_classes, C]``.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(features, affine=False)
        self.scale = nn.Parameter(torch.ones(num_classes, features))
        self.shift = nn.Parameter(torch.zeros(num_classes, features))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Normalises ``x`` ``[N, C, H, W]`` with the parameters of ``labels`` (int64 ``[N]``)."""
        x = super().forward(x)
        # Parameters in x's precision: under autocast the result would else be float32, twice the memory to move.
        scale = F.embedding(labels, self.scale).to(x.dtype)[:, :, None, None]
        shift = F.embedding(labels, self.shift).to(x.dtype)[:, :, None, None]
        return torch.addcmul(shift, x, scale)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """See ``BatchNorm2d``."""
        scale, shift = super().scale_and_shift()
        return self.scale.double() * scale, self.scale.double() * shift + self.shift.double()

    def folded(self) -> ClassAffine:
        """See ``folding``."""
        return ClassAffine(*(table.detach() for table in self.scale_and_shift()))


class SumOverRanks(torch.autograd.Function):
    """A tensor's sum over all ranks; differentiable, also twice, as each rank's loss depends on every part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return SumOverRanks.apply(gradient.contiguous())


def batch_norm(features: int, num_classes: int = 0) -> BatchNorm2d:
    """Batch norm, conditional on the class when there are classes."""
    return ConditionalBatchNorm2d(features, num_classes) if num_classes else BatchNorm2d(features)


def synchronise_(model: nn.Module) -> None:
    """Makes every two-dimensional batch norm in ``model`` a synchronised one, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm2d
        if isinstance(module, BatchNorm2d):
            module.synchronised = True
