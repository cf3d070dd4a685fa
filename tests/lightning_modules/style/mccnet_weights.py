"""MCCNet's weights by a formula."""

from __future__ import annotations

import torch

from lightning_modules.networks.mccnet import MCCNetwork
from tests.formulas import set_balanced_weights_


def set_mccnet_weights_(network: MCCNetwork) -> None:
    """Those that the authors' code was run with; no divisor is near 0."""
    set_balanced_weights_(network)
    assert network.style.bias is not None
    network.style.bias.data += torch.sign(network.style.bias.data)
