"""Content colours in stylised pictures (Gatys et al. 2016, "Preserving Color in Neural Style Transfer")."""

from __future__ import annotations

import torch
from torch import Tensor

from gesso.common.pixels import LUMA

#: Luminance and two chrominances of RGB (NTSC's YIQ).
_YIQ = torch.tensor([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def match_colors(style: Tensor, content: Tensor) -> Tensor:
    """The style picture with the mean and covariance of the content's colours: x -> A x + b.

    A = Σ_c^½ Σ_s^-½, of symmetric roots (Image Analogies, Hertzmann et al. 2001), which moves colours least.

    Args:
        style: [1, 3, H, W] in [-1, 1].
        content: [1, 3, H', W'] in [-1, 1].

    Returns:
        Like ``style``, clamped to [-1, 1].
    """
    pixels, target = style[0].flatten(1).double(), content[0].flatten(1).double()
    transform = _root(_covariance(target)) @ torch.linalg.inv(_root(_covariance(pixels)))
    matched = transform @ (pixels - pixels.mean(1, keepdim=True)) + target.mean(1, keepdim=True)
    return matched.view_as(style).to(style.dtype).clamp(-1, 1)


def _covariance(pixels: Tensor) -> Tensor:
    centred = pixels - pixels.mean(1, keepdim=True)
    # A grey or one-coloured picture has a covariance without inverse.
    return centred @ centred.T / pixels.shape[1] + 1e-5 * torch.eye(3, dtype=pixels.dtype, device=pixels.device)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.sqrt()) @ vectors.T


def keep_chrominance(picture: Tensor, content: Tensor) -> Tensor:
    """Luminance of ``picture``, colours of ``content``: both [N, 3, H, W] in [-1, 1]; clamped."""
    to_yiq = _YIQ.to(picture)
    both = torch.cat([_apply(to_yiq, picture)[:, :1], _apply(to_yiq, content)[:, 1:]], 1)
    return _apply(torch.linalg.inv(to_yiq), both).clamp(-1, 1)


def _apply(matrix: Tensor, images: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix, images)
