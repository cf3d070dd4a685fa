"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for weight matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from lightning_modules.core.flagged import FlaggedOptimizer

#: The quintic of the Newton-Schulz iteration: steepest at zero, not convergent to 1 exactly (0.7 to 1.2 instead).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(FlaggedOptimizer):
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
        # ``fused``, as on torch's own: what is loaded of a checkpoint has its count of steps on the parameters' device.
        groups: list[dict[str, object]] = [
            {"params": list(matrices), "muon": True},
            {"params": list(others), "fused": True},
        ]
        super().__init__([group for group in groups if group["params"]], {**defaults, "muon": False})

    def _step_group(self, group: dict[str, Any]) -> None:  # type: ignore[explicit-any]
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        scale: Tensor | None = getattr(self, "grad_scale", None)
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if group["muon"]:
            for parameter in parameters:
                self._step_matrix(
                    parameter,
                    found_inf,
                    scale,
                    lr=group["lr"],
                    momentum=group["momentum"],
                    weight_decay=group["weight_decay"],
                )
        elif parameters:
            self._step_others(
                parameters,
                found_inf,
                scale,
                lr=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
            )

    def _step_matrix(
        self,
        weight: Tensor,
        bad: Tensor | None,
        scale: Tensor | None,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"]
        assert weight.grad is not None
        gradient = weight.grad if scale is None else weight.grad / scale
        if bad is not None:
            # Where the step is bad, nothing moves: neither the buffer, nor (below) the weight.
            gradient = torch.where(bad.to(gradient.device) > 0, buffer, gradient)
        buffer.lerp_(gradient, 1 - momentum)
        direction = orthogonalized(gradient.lerp(buffer, momentum).flatten(1)).view_as(weight)
        size = 0.2 * math.sqrt(max(weight.shape[0], weight[0].numel()))
        change = lr * (weight_decay * weight + size * direction)
        weight.sub_(change if bad is None else change * (1 - bad.to(change)))

    def _step_others(
        self,
        parameters: list[Tensor],
        bad: Tensor | None,
        scale: Tensor | None,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
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
            beta1=betas[0],
            beta2=betas[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
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
