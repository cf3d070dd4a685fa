"""GANformer's mapping network (Hudson & Zitnick 2021, arXiv:2103.01209): one latent for each component of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gesso.common.ranges import Count, Share
from lightning_modules.networks.conditioning import required_labels
from lightning_modules.networks.ganformer.attention import AttentionOptions, BipartiteAttention
from lightning_modules.networks.precision import at_least_float32, weights_dtype
from lightning_modules.networks.stylegan2.layers import EqualizedLinear
from lightning_modules.networks.stylegan2.mapping import LatentMapping, MappingOptions, normalize_2nd_moment


@dataclass(frozen=True)
class ComponentMappingOptions(MappingOptions):
    """The mapping network of k components and a global latent.

    Args:
        w_dim: dimensions of the w of one component, a multiple of 4.
        layers: number of fully connected layers before the last one.
        components: k, the latents that pixels attend to.
        residual: pairs of layers have skip connections.
        self_attention: components attend to each other before each layer, or pair of layers.
        heads: of this attention.
        dropout: see ``AttentionOptions``.
    """

    w_dim: Count = 32
    components: Count = 16
    residual: bool = True
    self_attention: bool = True
    heads: Count = 1
    dropout: Share = 0.12

    @property
    def whole_dim(self) -> int:
        """Dimensions of the w of all components, and of the global one."""
        return (self.components + 1) * self.w_dim


class MappingStep(nn.Module):
    """Attention of components to each other, then one layer, or two with a skip connection around all of it.

    Args:
        inputs: features; those of the result are ``options.w_dim``.
        options: of the mapping network.
        attends: whether there is attention.
        residual: whether there are two layers and a skip connection.
    """

    def __init__(self, inputs: int, options: ComponentMappingOptions, *, attends: bool, residual: bool) -> None:
        super().__init__()
        width, rate = options.w_dim, options.lr_multiplier
        own = AttentionOptions("simplex", 1, "add", "none", options.heads, options.dropout)
        self.attention = BipartiteAttention(inputs, inputs, width, options.components, own) if attends else None
        self.first = EqualizedLinear(inputs, width, activation="lrelu", lr_multiplier=rate)
        self.second = EqualizedLinear(width, width, lr_multiplier=rate) if residual else None

    def forward(self, x: Tensor, places: Tensor | None) -> Tensor:
        """``[N, T, inputs]`` to ``[N, T, w_dim]``; ``places`` are codes of the T components, ``[T, w_dim]``."""
        seen = x
        if self.attention is not None:
            assert places is not None
            seen = self.attention(x.transpose(1, 2), x, places, places)[0].transpose(1, 2)
        seen = self.first(seen.flatten(0, 1))
        if self.second is not None:
            seen = F.leaky_relu(self.second(seen) + x.flatten(0, 1), 0.2)
        return seen.unflatten(0, x.shape[:2])


class MappingStack(nn.Module):
    """Steps, and a last layer, for components that share their weights.

    Args:
        inputs: features.
        options: of the mapping network.
        attends: whether components attend to each other.
    """

    def __init__(self, inputs: int, options: ComponentMappingOptions, *, attends: bool) -> None:
        super().__init__()
        width = options.w_dim
        count = (options.layers + 1) // 2 if options.residual else options.layers
        sizes = [inputs, *[width] * (count - 1)]
        steps = [
            MappingStep(size, options, attends=attends, residual=options.residual and size == width) for size in sizes
        ]
        self.steps = nn.ModuleList(steps)
        self.last = EqualizedLinear(width, width, activation="lrelu", lr_multiplier=options.lr_multiplier)

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        """``[N, T, inputs]`` to ``[N, T, w_dim]``."""
        for step in self.steps:
            x = step(x, places)
        return self.last(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ComponentMapping(LatentMapping):
    """Latents and labels to the w of k components and of the image as a whole.

    Components share their weights, and are told apart by learned codes of their places; the global latent, which is the
    last one, has weights of its own, and the labels.

    Args:
        options: see ``ComponentMappingOptions``.
        latent_dim: dimensions of z, all k + 1 parts together.
        num_classes: 0: unconditional.

    Raises:
        ValueError: k + 1 does not divide ``latent_dim``.
    """

    options: ComponentMappingOptions

    def __init__(
        self,
        options: ComponentMappingOptions = ComponentMappingOptions(),
        *,
        latent_dim: int,
        num_classes: int = 0,
    ) -> None:
        super().__init__(options, latent_dim=latent_dim, num_classes=num_classes, w_dim=options.whole_dim)
        count = options.components + 1
        if latent_dim % count:
            raise ValueError(
                f"latent_dim is {latent_dim}; it must be a multiple of mapping.components + 1 ({count}), which share it"
            )
        self.part = latent_dim // count
        attends = options.self_attention
        self.local = MappingStack(self.part, options, attends=attends)
        self.whole = MappingStack(self.part + (options.w_dim if num_classes else 0), options, attends=False)
        self.places = nn.Parameter(torch.rand(options.components, options.w_dim)) if attends else None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """w of latents and labels, at least float32 ``[N, (k + 1) options.w_dim]``, whatever the autocast.

        Args:
            z: ``[N, latent_dim]``.
            labels: int64 ``[N]`` in [0, num_classes); ignored by an unconditional network.

        Raises:
            ValueError: a conditional network got no labels.
        """
        labels = required_labels(labels, self.num_classes)
        with torch.autocast(z.device.type, enabled=False):
            dtype = at_least_float32(weights_dtype(self))
            local, whole = z.to(dtype).split([self.latent_dim - self.part, self.part], 1)
            # All components by one factor, as in the authors' code.
            local = self.local(normalize_2nd_moment(local).unflatten(1, (-1, self.part)), self.places)
            parts = [normalize_2nd_moment(whole), *([] if labels is None else [self.embedded(labels)])]
            whole = self.whole(torch.cat(parts, 1)[:, None])
            return torch.cat([local, whole], 1).flatten(1)

    @torch.no_grad()
    def follow(self, mean: Tensor) -> None:
        """See ``LatentMapping``; as in the authors' code, all components have one mean."""
        parts = mean.view(self.options.components + 1, -1)
        super().follow(parts.mean(0).repeat(len(parts)))
