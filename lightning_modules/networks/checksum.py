"""The identity of a network: a checksum of its weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_checksum(network: nn.Module) -> str:
    """SHA-256, in hexadecimal digits, of all parameters and buffers: their names, shapes and numbers as float32.

    The same on every device, in every memory format and whatever the precision that holds the same numbers.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu()
        values = values.to(torch.float32) if values.is_floating_point() else values
        digest.update(f"{name} {list(values.shape)} ".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
