"""Spectral normalisation of all layers of a network."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations


def add_spectral_norm_(network: nn.Module) -> None:
    """Divides every convolution, linear and embedding weight by its largest singular value (Miyato et al. 2018).

    arXiv:1802.05957. Each training-mode forward does one power iteration. In the state dict ``weight`` becomes
    ``parametrizations.weight.original`` (a parameter, so an average of weights averages it) beside the vectors ``_u``
    and ``_v`` (buffers): a checkpoint loads only into a network that has spectral norm too. Initialise first.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            parametrizations.spectral_norm(module)
