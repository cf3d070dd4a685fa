"""Small diffusion models, and networks that know the answer, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.core.optimization import OptimizerKind, OptimizerOptions
from lightning_modules.diffusion.consistency import ECT
from lightning_modules.diffusion.ddpm import DDPM
from lightning_modules.diffusion.edm import EDM
from lightning_modules.diffusion.flow import Flow
from lightning_modules.diffusion.meanflow import MeanFlow
from lightning_modules.diffusion.progressive import ProgressiveDistillation
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.samplers.sampling import SamplingOptions

#: Of a network that is made in no time.
TINY = DenoiserOptions(width=8, multipliers=(1, 2), blocks=1, attention_resolutions=(), dropout=0.0)
#: Of squares of 2 x 2 pixels, for trainings of 32 px.
TINY_SQUARES = replace(TINY, patch=2)
#: Of families that are trained: kind, network, and options whose stages change after a few batches of 8.
TRAINED: dict[str, tuple[type[DenoisingFamily], DenoiserOptions, dict[str, Any]]] = {
    "edm": (EDM, TINY_SQUARES, {"augment": 0.5}),
    "edm2": (EDM, replace(TINY_SQUARES, architecture="edm2", head_channels=8), {"uncertainty": True}),
    "flow": (Flow, DenoiserOptions("dit", width=16, depth=2, heads=2, patch=4), {}),
    "ddpm": (DDPM, TINY_SQUARES, {"prediction": "v", "min_snr_gamma": 5.0}),
    "ect": (ECT, TINY_SQUARES, {"augment": 0.5, "stage_kimg": 0.024, "huber": 0.01}),
    "progressive": (
        ProgressiveDistillation,
        TINY_SQUARES,
        {"teacher_steps": 8, "stage_kimg": 0.024, "half_life_kimg": 0.01},
    ),
    "meanflow": (MeanFlow, TINY_SQUARES, {}),
}


def trained(name: str, *, gradient_checkpointing: bool = False, **options: Any) -> DenoisingFamily:
    """One of ``TRAINED``: of 32 px and 3 classes, ready to be trained, with random weights in every layer."""
    kind, network, own = TRAINED[name]
    optimizer: OptimizerKind = "radam" if kind is ECT else "adam"
    chosen = {
        "num_classes": 3,
        "network": replace(network, gradient_checkpointing=gradient_checkpointing),
        # The bias of attention's keys has no gradient but rounding, out of which a small eps would make whole steps.
        "optimizer": OptimizerOptions(optimizer, lr=1e-2, eps=1e-4),
        "sampling": SamplingOptions("flow-map" if kind is MeanFlow else "ddim", 2),
    }
    module = tiny(kind, resolution=32, **{**own, **chosen, **options}).train()
    if isinstance(module, ProgressiveDistillation):
        module.teacher_network.load_state_dict(module.network.state_dict())
    return module


class Function(nn.Module):
    """A network that is a function of (x, noise, labels), with one parameter that does nothing."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        return self.function(x, noise, labels) + 0 * self.nothing


def tiny(kind: type[DenoisingFamily], **options: Any) -> DenoisingFamily:
    """A family of 16 px, with random weights in every layer (some begin with zeros)."""
    torch.manual_seed(0)
    module = kind(**{"resolution": 16, "channels": 1, "network": TINY, **options})
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval()


def knowing(kind: type[DenoisingFamily], function: Callable[..., Tensor], **options: Any) -> DenoisingFamily:
    """A family whose network is a function."""
    module = tiny(kind, **options)
    module.network = Function(function)
    return module
