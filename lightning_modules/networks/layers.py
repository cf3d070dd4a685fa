"""Layers and building blocks that several networks share.

Feature maps are ``[N, C, H, W]``, in channels-last memory where the network is; sides are in pixels.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from lightning_modules.networks.batch_norm import ConditionalBatchNorm2d, batch_norm

Normalization = Literal["batch", "layer", "none"]

RESOLUTIONS = (32, 64, 128, 256)


class SelfAttention(nn.Module):
    """Self-attention over the pixels of a feature map (SAGAN, Zhang et al. 2018, arXiv:1805.08318).

    Keys and values are max-pooled to half the side, as in the authors' code; the products are not scaled, as in the
    paper. The residual's weight ``gamma`` starts at 0, so the layer starts as the identity.

    Args:
        channels: C, a multiple of 8. Queries and keys have C / 8 channels, values C / 2.
        double_backward: allow a second differentiation (gradient penalties), which the fused attention kernels refuse.
    """

    def __init__(self, channels: int, *, double_backward: bool = False) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"self-attention needs a multiple of 8 channels, not {channels}; choose another width")
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.output = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.double_backward = double_backward

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, C, H, W]`` to the same shape; H and W are even."""
        query = _tokens(self.query(x))  # [N, 1, HW, C/8]
        key = _tokens(F.max_pool2d(self.key(x), 2))  # [N, 1, HW/4, C/8]
        value = _tokens(F.max_pool2d(self.value(x), 2))  # [N, 1, HW/4, C/2]
        with sdpa_kernel(SDPBackend.MATH) if self.double_backward else nullcontext():
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        attended = attended.squeeze(1).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return x + self.gamma.to(x.dtype) * self.output(attended)


class UpBlock(nn.Module):
    """Doubles the side: transposed convolution 4x4, (conditional) batch norm, ReLU, optional self-attention."""

    def __init__(self, in_channels: int, out_channels: int, *, num_classes: int = 0, attention: bool = False) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        self.norm = batch_norm(out_channels, num_classes)
        self.attention = SelfAttention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``[N, in, H, W] -> [N, out, 2H, 2W]``; ``labels`` (int64 ``[N]``) exactly when there are classes."""
        x = self.convolution(x)
        x = self.norm(x) if labels is None else self.norm(x, labels)
        return self.attention(F.relu(x, inplace=True))


class DownBlock(nn.Module):
    """Halves the side: convolution 4x4, normalisation, LeakyReLU(0.2), optional self-attention.

    Differentiable twice, for gradient penalties.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, normalization: Normalization = "batch", attention: bool = False
    ) -> None:
        super().__init__()
        bias = normalization == "none"
        self.convolution = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)
        self.norm = _normalization(normalization, out_channels)
        self.attention = SelfAttention(out_channels, double_backward=True) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W] -> [N, out, H/2, W/2]``."""
        return self.attention(F.leaky_relu(self.norm(self.convolution(x)), 0.2, inplace=True))


def stage_channels(resolution: int, width: int) -> list[int]:
    """Channels of the feature maps of sides ``resolution / 2, ..., 8, 4``: doubling from ``width`` to ``8 * width``.

    Raises:
        ValueError: a resolution or width that the networks don't have.
    """
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution {resolution} is not supported; choose one of {', '.join(map(str, RESOLUTIONS))}")
    if width < 1:
        raise ValueError(f"width {width} is not positive; 64 is the usual one")
    return [width * min(2**stage, 8) for stage in range(resolution.bit_length() - 3)]


def check_attention_resolution(attention_resolution: int, resolution: int) -> None:
    """Raises a ValueError unless a feature map between the 4x4 one and the image has that side (0: no attention)."""
    sides = [2**power for power in range(3, resolution.bit_length() - 1)]
    if attention_resolution and attention_resolution not in sides:
        raise ValueError(
            f"attention_resolution {attention_resolution} is no feature map of a {resolution} px network; "
            f"choose 0 (none) or one of {', '.join(map(str, sides))}"
        )


def required_labels(labels: Tensor | None, num_classes: int) -> Tensor | None:
    """The labels a network is to use: none without classes, whatever was given.

    Raises:
        ValueError: the network has classes and there are no labels.
    """
    if num_classes and labels is None:
        raise ValueError(f"a network conditioned on {num_classes} classes needs labels; give them or set num_classes=0")
    return labels if num_classes else None


def init_dcgan_(network: nn.Module) -> None:
    """Initialises in place as DCGAN does: weights N(0, 0.02), batch-norm scales N(1, 0.02), biases 0.

    Embeddings are Glorot-uniform, as in the projection discriminator's own code (Miyato & Koyama 2018): with N(0, 0.02)
    labels count for so little that after a short training many a digit is not that of its class.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.Embedding):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, ConditionalBatchNorm2d):
            nn.init.normal_(module.scale, 1.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def add_spectral_norm_(network: nn.Module) -> None:
    """Divides every convolution, linear and embedding weight by its largest singular value (Miyato et al. 2018).

    arXiv:1802.05957. Each training-mode forward does one power iteration. In the state dict ``weight`` becomes
    ``parametrizations.weight.original`` (a parameter, so an average of weights averages it) beside the vectors ``_u``
    and ``_v`` (buffers): a checkpoint loads only into a network that has spectral norm too. Initialise first.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            parametrizations.spectral_norm(module)


def reflect(x: Tensor, by: int = 1) -> Tensor:
    """Pads each side by ``by`` pixels: mirrored, or repeated where a side is too short to mirror so many."""
    modes = ["reflect" if side > by else "replicate" for side in x.shape[2:]]
    if modes[0] == modes[1]:
        return F.pad(x, (by, by, by, by), mode=modes[0])
    return F.pad(F.pad(x, (by, by, 0, 0), mode=modes[1]), (0, 0, by, by), mode=modes[0])


def like_weights(x: Tensor, network: nn.Module) -> Tensor:
    """``x`` in the dtype of the network's weights (bf16-true): images and latents are fp32 everywhere else."""
    return x.to(next(network.parameters()).dtype)


def checkpointed(module: nn.Module, *inputs: Any, enabled: bool) -> Any:
    """``module(*inputs)``; when ``enabled``, activations are recomputed in the backward pass instead of kept.

    Exact for modules that change their buffers in forward (batch norm's statistics, spectral norm's vectors): the
    recomputation starts from the buffers as they were, and its own changes to them are dropped.
    """
    return _checkpoint(module, *inputs) if enabled and torch.is_grad_enabled() else module(*inputs)


# The compiler takes no contexts of our own in a checkpoint; so it compiles what lies inside and between instead.
@torch.compiler.disable(recursive=False)
def _checkpoint(module: nn.Module, *inputs: Any) -> Any:
    return checkpoint(
        module, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _BuffersAsTheyAre(module))
    )


class _BuffersAsTheyAre:
    """A context, to be entered any number of times, in which a module has the buffers of the context's making."""

    def __init__(self, module: nn.Module) -> None:
        self.owned = [(owner, name) for owner in module.modules() for name, _ in owner.named_buffers(recurse=False)]
        self.then = [getattr(owner, name).clone() for owner, name in self.owned]
        self.now: list[Tensor] = []

    def __enter__(self) -> None:
        self.now = [getattr(owner, name) for owner, name in self.owned]
        # Clones, since forward writes into them and a second backward must find them untouched.
        self._put([buffer.clone() for buffer in self.then])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put(self.now)

    def _put(self, buffers: list[Tensor]) -> None:
        for (owner, name), buffer in zip(self.owned, buffers, strict=True):
            setattr(owner, name, buffer)


def _tokens(maps: Tensor) -> Tensor:
    # One head: the fused attention kernels ask for four dimensions.
    return maps.flatten(2).transpose(1, 2).unsqueeze(1)


def _normalization(kind: Normalization, features: int) -> nn.Module:
    match kind:
        case "batch":
            return batch_norm(features)
        case "layer":
            # Layer norm over C, H and W with one scale a channel; its kernel reads channels-last maps in place.
            return nn.GroupNorm(1, features)
        case "none":
            return nn.Identity()
    raise ValueError(f"normalization {kind!r} is unknown; choose batch, layer or none")
