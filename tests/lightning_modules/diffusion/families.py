"""Small diffusion models, and networks that know the answer, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.denoisers import DenoiserOptions

#: Of a network that is made in no time.
TINY = DenoiserOptions(width=8, multipliers=(1, 2), blocks=1, attention_resolutions=(), dropout=0.0)


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
