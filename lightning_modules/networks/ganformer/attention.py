"""Bipartite attention of GANformer (Hudson & Zitnick 2021, arXiv:2103.01209): from every pixel to a few latents.

Products are ordered so that none is of all pixels with all pairs of channels: keys are brought into the pixels' space,
and values into that of the modulation, before they meet the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Share
from lightning_modules.networks.precision import in_full_precision
from lightning_modules.networks.stylegan2.layers import EqualizedLinear


@dataclass(frozen=True)
class AttentionOptions:
    """Attention from features to latents.

    Args:
        kind: ``simplex``: keys are maps of the latents; ``duplex``: keys are centroids of the features, as in k-means.
        iterations: of k-means; 1: the centroids are learned vectors.
        integration: how what is attended to changes features: ``add``, ``mul`` (a factor) or ``both``.
        normalization: of the features before that: over the channels of a pixel (``layer``), over the pixels of a
            channel (``instance``) or ``none``. ``add`` takes the mean away, ``mul`` divides by the root mean square.
        heads: number of attention heads.
        dropout: half of this share of the attention weights, and half of this share of the latents, are dropped in
            training.
        first_side, last_side: sides of the smallest and largest feature maps that attend.
    """

    kind: Literal["simplex", "duplex"] = "duplex"
    iterations: Count = 1
    integration: Literal["add", "mul", "both"] = "mul"
    normalization: Literal["layer", "instance", "none"] = "layer"
    heads: Count = 1
    dropout: Share = 0.12
    first_side: Count = 4
    last_side: Count = 128


class BipartiteAttention(nn.Module):
    """Features attend to latents, which scale and shift them.

    Args:
        channels: C, of the features.
        latent_dim: D, of a latent.
        place_dim: P, of the codes of features' and latents' places.
        latents: T, how many there are.
        options: see ``AttentionOptions``.

    Raises:
        ValueError: heads that do not divide the channels.
    """

    def __init__(self, channels: int, latent_dim: int, place_dim: int, latents: int, options: AttentionOptions) -> None:
        super().__init__()
        if channels % options.heads:
            raise ValueError(f"attention.heads is {options.heads}; it must divide the {channels} channels")
        self.options, self.heads, self.width = options, options.heads, channels // options.heads
        controls = channels * (2 if options.integration == "both" else 1)
        # Two linear layers of equalised learning rate, whose weights are this module's own: ZeRO 3 gathers no others.
        self.query_weight, self.query_bias = _linear(channels, channels)
        self.control_weight, self.control_bias = _linear(channels, controls)
        self.query_places = EqualizedLinear(place_dim, channels)
        self.values = EqualizedLinear(latent_dim, channels)
        if options.kind == "simplex":
            self.keys = EqualizedLinear(latent_dim, channels)
            self.key_places = EqualizedLinear(place_dim, channels)
        else:
            # Of contents, and of places.
            self.centroids = nn.Parameter(torch.randn(2, self.heads, latents, self.width))
            self.importance = nn.Parameter(torch.ones(2, self.heads, 1, self.width))

    def forward(
        self, x: Tensor, latents: Tensor, places: Tensor, latent_places: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Changed features, in the dtype of ``x``, and the attention weights, at least float32 ``[N, heads, T, L]``.

        Args:
            x: L features, ``[N, C, L]``.
            latents: ``[N, T, D]``.
            places: codes of the features' places, ``[L, P]``.
            latent_places: codes of the latents', ``[T, P]``; a ``duplex`` attention needs none.
        """
        full, latents = in_full_precision(x), in_full_precision(latents)
        places = self._in_heads(self.query_places(places.to(full.dtype)))
        if self.options.kind == "simplex":
            weights = self._simplex(full, latents, places, latent_places)
        else:
            weights = self._duplex(full, places)
        return self._integrated(full, self._attended(latents, weights)).to(x.dtype), weights

    def _simplex(self, x: Tensor, latents: Tensor, places: Tensor, latent_places: Tensor | None) -> Tensor:
        keys = self._in_heads(self.keys(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]))
        if latent_places is not None:
            keys = keys + self._in_heads(self.key_places(latent_places.to(keys.dtype)))
        return self._weights(self._scores(x, keys, keys, places))

    def _duplex(self, x: Tensor, places: Tensor) -> Tensor:
        contents, located = in_full_precision(self.importance) * in_full_precision(self.centroids)
        weights = self._weights(self._scores(x, contents[None], located[None], places))
        for _ in range(1, self.options.iterations):
            # How much of a centroid each feature is.
            shares = weights / (weights.sum(3, keepdim=True) + 1e-8)
            found, located = self._centroids(x, shares, places)
            weights = self._weights(self._scores(x, self.importance[0] * found, self.importance[1] * located, places))
        return weights

    def _centroids(self, x: Tensor, shares: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Means of queries and of places by ``shares`` [N, heads, T, L]: each ``[N, heads, T, width]``."""
        means = shares @ x[:, None].transpose(-1, -2)
        weight, bias = self._query_map(x.dtype)
        return means @ weight.transpose(-1, -2) + shares.sum(-1, keepdim=True) * bias, shares @ places

    def _scores(self, x: Tensor, contents: Tensor, located: Tensor, places: Tensor) -> Tensor:
        """Products of queries with keys ``contents``, and of places ``[heads, L, width]`` with keys ``located``.

        Keys are ``[N or 1, heads, T, width]``.

        Returns:
            ``[N, heads, T, L]``.
        """
        weight, bias = self._query_map(x.dtype)
        of_contents = (contents @ weight) @ x[:, None] + contents @ bias.transpose(-1, -2)
        return of_contents + located @ places.transpose(-1, -2)

    def _weights(self, scores: Tensor) -> Tensor:
        weights = (scores / math.sqrt(self.width)).softmax(2)
        share = self.options.dropout / 2
        if share and self.training:
            whole = torch.ones_like(weights[..., :1])
            weights = F.dropout(weights, share) * F.dropout(whole, share)
        return weights

    def _attended(self, latents: Tensor, weights: Tensor) -> Tensor:
        """What features get of the latents, ``[N, C or 2 C, L]``."""
        values = self._in_heads(self.values(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]))
        weight = self.control_weight.to(values.dtype) / math.sqrt(self.control_weight.shape[1])
        by_head = weight.unflatten(1, (self.heads, self.width))
        modulating = (values @ by_head.permute(1, 2, 0)).flatten(1, 2)
        return modulating.transpose(1, 2) @ weights.flatten(1, 2) + self.control_bias[:, None]

    def _integrated(self, x: Tensor, control: Tensor) -> Tensor:
        kind, dim = self.options.integration, {"layer": 1, "instance": 2, "none": None}[self.options.normalization]
        if dim is not None and kind != "mul":
            x = x - x.mean(dim, keepdim=True)
        if dim is not None and kind != "add":
            x = x * (x.square().mean(dim, keepdim=True) + 1e-8).rsqrt()
        gain, shift = control.chunk(2, 1) if kind == "both" else (control, control)
        if kind != "add":
            x = x * (gain + 1)
        return x if kind == "mul" else x + shift

    def _query_map(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weights ``[heads, width, C]`` and biases ``[heads, 1, width]`` that make queries of features."""
        weight = self.query_weight.to(dtype) / math.sqrt(self.query_weight.shape[1])
        return weight.unflatten(0, (self.heads, self.width)), self.query_bias.to(dtype).view(self.heads, 1, self.width)

    def _in_heads(self, x: Tensor) -> Tensor:
        """``[..., L, C]`` to ``[..., heads, L, width]``."""
        return x.unflatten(-1, (self.heads, self.width)).transpose(-2, -3)


def _linear(inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))


def places_on_grid(side: int, dims: int) -> Tensor:
    """Codes of the pixels of a square, row by row: ``[side^2, dims]`` in torch's default dtype.

    Sines and cosines of the column, then of the row, which go from -1 to 1 (Vaswani et al. 2017, arXiv:1706.03762).

    Raises:
        ValueError: no multiple of 4 dimensions.
    """
    if dims % 4:
        raise ValueError(f"mapping.w_dim is {dims}; it must be a multiple of 4, as the codes of places are sinusoids")
    places = torch.linspace(-1, 1, side, dtype=torch.float64)
    angles = places[:, None] / 10000.0 ** (4 * torch.arange(dims // 4, dtype=torch.float64) / dims)
    codes = torch.cat([angles.sin(), angles.cos()], 1)
    columns, rows = codes.expand(side, -1, -1), codes[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1).to(torch.get_default_dtype())
