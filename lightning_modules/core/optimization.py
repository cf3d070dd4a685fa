"""Options of a network's optimizer: kind, learning rate and its schedule.

A learning rate, and a beta2 that changes, are pure functions of the images seen: checkpoints need not store them, and
they do not depend on the number of ranks or the batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from gesso.common.ranges import Decay, NonNegative, Positive, check_options
from gesso.common.schedules import remaining
from lightning_modules.core.muon import Muon, hidden_matrices
from lightning_modules.core.radam import RAdam

OptimizerKind = Literal["adam", "adamw", "radam", "muon"]
Schedule = Literal["constant", "linear", "cosine", "inverse_sqrt"]


@dataclass(frozen=True)
class OptimizerOptions:
    """One network's optimizer, and its learning rate over the training.

    Args:
        kind: ``adam`` (Kingma and Ba 2015), ``adamw`` (Loshchilov and Hutter 2019), ``radam`` (Liu et al. 2020) or
            ``muon`` (Jordan et al. 2024: orthogonal updates of hidden weight matrices and kernels, AdamW for the rest;
            not under ZeRO).
        lr: learning rate, after the warm-up and before any decay.
        beta1: decay rate of the mean of the gradients.
        beta2: decay rate of the mean of their squares.
        eps: added to the root of that mean.
        weight_decay: decoupled from the gradient, except with ``adam``, where it is an L2 penalty.
        momentum: of ``muon``.
        warmup_kimg: thousands of images over which the learning rate rises linearly from 0; 0: none.
        schedule: after the warm-up: ``constant``; ``linear`` or ``cosine`` (Loshchilov and Hutter 2017) decay to
            ``final_lr``; ``inverse_sqrt`` (EDM2, Karras et al. 2024): lr / sqrt(t / t0), t0 being where decay begins.
        hold_kimg: thousands of images until which the learning rate stays before it decays (counted from the start of
            training, so the warm-up is part of it); ``inverse_sqrt`` needs it or a warm-up.
        decay_kimg: thousands of images at which ``linear`` and ``cosine`` arrive; None: the length of the training.
        final_lr: where they arrive.
        final_beta2: where beta2 arrives, on the same course (R3GAN, Huang et al. 2024); None: beta2 stays.

    Raises:
        ValueError: a number out of its range; names it.
    """

    kind: OptimizerKind = "adam"
    lr: NonNegative = 2e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    momentum: Decay = 0.95
    warmup_kimg: NonNegative = 0.0
    schedule: Schedule = "constant"
    hold_kimg: NonNegative = 0.0
    decay_kimg: Positive | None = None
    final_lr: NonNegative = 0.0
    final_beta2: Decay | None = None

    def __post_init__(self) -> None:
        check_options(type(self), vars(self))
        if self.decay_kimg is not None and self.decay_kimg <= self._decay_begins:
            raise ValueError(
                f"decay_kimg is {self.decay_kimg}; it must be more than warmup_kimg and hold_kimg "
                f"({self._decay_begins:g}), where decay begins"
            )
        if self.schedule == "inverse_sqrt" and not self._decay_begins:
            raise ValueError("schedule inverse_sqrt needs hold_kimg or warmup_kimg: where decay begins")
        if self.final_beta2 is not None and self.schedule not in ("linear", "cosine"):
            raise ValueError(
                f"final_beta2 needs schedule linear or cosine, whose course it follows, not {self.schedule}"
            )

    def with_extra_updates(self, interval: int) -> OptimizerOptions:
        """The options for a network that gets one more update every ``interval`` steps, by a lazy regulariser.

        Learning rates times c and betas to the power c, c = interval / (interval + 1): over a period the training is as
        long as without the additional update (StyleGAN2, Karras et al. 2020, arXiv:1912.04958, appendix B).
        """
        share = interval / (interval + 1)
        return replace(
            self,
            lr=self.lr * share,
            final_lr=self.final_lr * share,
            beta1=self.beta1**share,
            beta2=self.beta2**share,
            final_beta2=None if self.final_beta2 is None else self.final_beta2**share,
        )

    def optimizer(self, network: nn.Module) -> Optimizer:
        """A fresh optimizer of the network's parameters."""
        betas = (self.beta1, self.beta2)
        match self.kind:
            case "adam":
                return Adam(network.parameters(), self.lr, betas, self.eps, self.weight_decay, fused=True)
            case "adamw":
                return AdamW(network.parameters(), self.lr, betas, self.eps, self.weight_decay, fused=True)
            case "radam":
                return RAdam(network.parameters(), self.lr, betas, self.eps, self.weight_decay)
            case "muon":
                matrices = hidden_matrices(network)
                chosen = {id(matrix) for matrix in matrices}
                return Muon(
                    matrices,
                    [parameter for parameter in network.parameters() if id(parameter) not in chosen],
                    lr=self.lr,
                    momentum=self.momentum,
                    betas=betas,
                    eps=self.eps,
                    weight_decay=self.weight_decay,
                )
        raise ValueError(f"optimizer kind {self.kind!r} is unknown; choose adam, adamw, radam or muon")

    @property
    def changes(self) -> bool:
        """Whether the learning rate changes during training."""
        return self.schedule != "constant" or self.warmup_kimg > 0

    def learning_rate(self, images_seen: int, *, total_kimg: float | None = None) -> float:
        """The learning rate of the step that starts after ``images_seen`` images.

        Args:
            images_seen: number of images trained on before this step.
            total_kimg: length of the training in thousands of images, used where ``decay_kimg`` is None.

        Raises:
            ValueError: neither ``decay_kimg`` nor ``total_kimg`` is given, and the schedule needs one.
        """
        kimg, begins = images_seen / 1000, self._decay_begins
        if kimg < self.warmup_kimg:
            return self.lr * kimg / self.warmup_kimg
        if self.schedule == "constant" or kimg <= begins:
            return self.lr
        if self.schedule == "inverse_sqrt":
            return self.lr / math.sqrt(kimg / begins)
        return self.final_lr + (self.lr - self.final_lr) * self._remaining(kimg, total_kimg)

    def betas(self, images_seen: int, *, total_kimg: float | None = None) -> tuple[float, float]:
        """beta1 and beta2 of the step that starts after ``images_seen`` images; see ``learning_rate``."""
        if self.final_beta2 is None:
            return self.beta1, self.beta2
        left = self._remaining(images_seen / 1000, total_kimg)
        return self.beta1, self.final_beta2 + (self.beta2 - self.final_beta2) * left

    def _remaining(self, kimg: float, total_kimg: float | None) -> float:
        ends = self.decay_kimg if self.decay_kimg is not None else total_kimg
        if ends is None:
            raise ValueError(f"schedule {self.schedule} needs decay_kimg, since nothing says how long training is")
        return remaining("cosine" if self.schedule == "cosine" else "linear", kimg, self._decay_begins, ends)

    @property
    def _decay_begins(self) -> float:
        return max(self.warmup_kimg, self.hold_kimg)
