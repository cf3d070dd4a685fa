"""RAdam (Liu et al. 2020, arXiv:1908.03265) that counts its steps on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import StateDict

from lightning_modules.core.flagged import FlaggedOptimizer
from lightning_modules.core.tensor_lists import grouped

#: Shortest length of the approximated average with which steps are adaptive (torch's; the paper has 4).
SHORTEST = 5.0


class RAdam(FlaggedOptimizer):
    """Equals ``torch.optim.RAdam(decoupled_weight_decay=True)``, without a step of which the host reads something.

    torch's reads the number of steps, and cannot skip a step by a flag on the device. All parameters of a group
    that are stepped together share one count.

    Args:
        parameters: of the network.
        lr: learning rate.
        betas: decay rates of the means of the gradients and of their squares.
        eps: added to the root of the latter.
        weight_decay: decoupled from the gradient.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _step_group(self, group: dict[str, Any]) -> None:  # type: ignore[explicit-any]
        for alike in grouped(parameter for parameter in group["params"] if parameter.grad is not None):
            self._step_alike(alike, group)

    def state_dict(self) -> StateDict:
        """As of every optimizer; each parameter has a count of its own there."""
        state: StateDict = super().state_dict()
        own = {key: {**entry, "step": entry["step"].clone()} for key, entry in state["state"].items()}
        return {**state, "state": own}

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:  # type: ignore[explicit-any]
        device = parameters[0].device
        bad: Tensor | None = getattr(self, "found_inf", None)
        bad = None if bad is None else bad.to(device, torch.float32)
        count = self._count(parameters)
        means = [self.state[parameter]["exp_avg"] for parameter in parameters]
        squares = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
        beta1, beta2 = group["betas"]
        # Adam's own kernel, with a learning rate of 0, for the moments: it leaves them as they are in a bad step.
        torch._fused_adam_(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc] # Those without were left out.
            means,
            squares,
            [],
            [count.add_(1)] * len(parameters),
            lr=0.0,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=1.0,
            amsgrad=False,
            maximize=False,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=bad,
        )
        adaptive, plain = factors(count, beta1, beta2)
        decay = torch.full_like(plain, group["weight_decay"])
        if bad is not None:
            count.sub_(bad)
            adaptive, plain, decay = (torch.where(bad > 0, 0, factor) for factor in (adaptive, plain, decay))
        dtype = parameters[0].dtype
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, (1 - group["lr"] * decay).to(dtype))
        steps = torch._foreach_sqrt(squares)
        torch._foreach_add_(steps, group["eps"])
        torch._foreach_reciprocal_(steps)
        torch._foreach_mul_(steps, (group["lr"] * adaptive).to(dtype))
        torch._foreach_addcmul_(parameters, means, steps, value=-1.0)
        torch._foreach_sub_(parameters, torch._foreach_mul(means, (group["lr"] * plain).to(dtype)))

    def _count(self, parameters: list[Tensor]) -> Tensor:
        """The number of steps of these parameters, float32, one tensor in the states of all of them."""
        known = [self.state[parameter]["step"] for parameter in parameters if self.state[parameter]]
        if len(known) == len(parameters) and all(step is known[0] for step in known):
            return known[0]
        # Fresh, or loaded from a checkpoint, where each parameter has its own.
        start = known[0] if known else torch.zeros(())
        count = start.to(parameters[0].device, torch.float32, copy=True)
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = count
        return count


def factors(count: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """What the mean of the gradients is multiplied by in a step: float64, of shape [].

    Args:
        count: number of this step, from 1.

    Returns:
        The factor of the mean over the root of the mean square, and that of the mean alone; one of them is 0.
    """
    count = count.double()
    longest = 2 / (1 - beta2) - 1
    squares = torch.pow(beta2, count)
    length = longest - 2 * count * squares / (1 - squares)
    rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    is_adaptive = length > SHORTEST
    correction = 1 / (1 - torch.pow(beta1, count))
    adaptive = torch.where(is_adaptive, (rectified * (1 - squares)).sqrt() * correction, 0)
    return adaptive, torch.where(is_adaptive, 0, correction)
