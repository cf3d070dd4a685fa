"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for weight matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

#: The quintic of the Newton-Schulz iteration: steepest at zero, not convergent to 1 exactly (0.7 to 1.2 instead).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(Optimizer):
    """Replaces the momentum of each weight matrix by the nearest orthogonal matrix; AdamW steps all other parameters.

    Kernels of convolutions count as matrices of shape [first dimension, product of the others]. An update is scaled by
    0.2 sqrt(max(rows, columns)), which gives it the size of AdamW's (Liu et al. 2025, "Muon is Scalable for LLM
    Training"), so that one learning rate serves both.

    Args:
        matrices: weights of two or more dimensions.
        others: all other parameters.
        lr: learning rate of both.
        momentum: of the matrices (Nesterov's).
        betas, eps: AdamW's.
        weight_decay: decoupled, of both.
    """

    #: ``skipped`` steps need no look at the device's flag by the host: see ``core.stability.skip_if``.
    _step_supports_amp_scaling = True
    #: A slice of a flattened network is no matrix: ZeRO cannot serve.
    needs_whole_weights = True

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups: list[dict[str, Any]] = [{"params": list(matrices), "muon": True}, {"params": list(others)}]
        super().__init__([group for group in groups if group["params"]], {**defaults, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; does nothing where ``found_inf`` (set from outside, as on torch's fused optimizers) is 1."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        scale: Tensor | None = getattr(self, "grad_scale", None)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["muon"]:
                for parameter in parameters:
                    self._step_matrix(parameter, group, found_inf, scale)
            elif parameters:
                self._step_others(parameters, group, found_inf, scale)
        return loss

    def _step_matrix(self, weight: Tensor, group: dict[str, Any], bad: Tensor | None, scale: Tensor | None) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum, buffer = group["momentum"], state["momentum_buffer"]
        assert weight.grad is not None
        gradient = weight.grad if scale is None else weight.grad / scale
        if bad is not None:
            # Where the step is bad, nothing moves: neither the buffer, nor (below) the weight.
            gradient = torch.where(bad.to(gradient.device) > 0, buffer, gradient)
        buffer.lerp_(gradient, 1 - momentum)
        direction = orthogonalized(gradient.lerp(buffer, momentum).flatten(1)).view_as(weight)
        size = 0.2 * math.sqrt(max(weight.shape[0], weight[0].numel()))
        change = group["lr"] * (group["weight_decay"] * weight + size * direction)
        weight.sub_(change if bad is None else change * (1 - bad.to(change)))

    def _step_others(
        self, parameters: list[Tensor], group: dict[str, Any], bad: Tensor | None, scale: Tensor | None
    ) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            grad_scale=scale,
            found_inf=bad,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalized(matrix: Tensor) -> Tensor:
    """Approximately U Vᵀ of the singular value decomposition U S Vᵀ, by five Newton-Schulz iterations.

    In bfloat16 on a GPU, as published, and in float32 on a CPU, where bfloat16 may be slow.

    Args:
        matrix: [rows, columns].

    Returns:
        Singular values between about 0.7 and 1.2; the shape and dtype of ``matrix``.
    """
    a, b, c = COEFFICIENTS
    x = matrix.float()
    x = x / torch.linalg.vector_norm(x).clamp_min(1e-7)
    x = x.bfloat16() if x.is_cuda else x
    # The smaller side first: the products below are square matrices of its length.
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(ITERATIONS):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    return (x.T if tall else x).to(matrix.dtype)


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """The trained weights that Muon is for: matrices and kernels without the first and last layer's and embeddings."""
    embeddings = {id(p) for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    candidates = [p for p in network.parameters() if p.requires_grad and p.dim() >= 2 and id(p) not in embeddings]
    return candidates[1:-1]
