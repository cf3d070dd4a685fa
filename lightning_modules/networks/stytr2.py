"""StyTr2: style transfer by transformers (Deng et al. 2022, arXiv:2105.14576)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, Positive, Share, Whole
from lightning_modules.networks.adain import Decoder, DecoderOptions
from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.padding import to_multiple
from lightning_modules.networks.precision import at_least_float32, like_weights
from lightning_modules.networks.rows import rows
from lightning_modules.networks.stytr2_layers import EncoderLayer, TransferLayer
from lightning_modules.networks.windows import Windows

#: Side of the square of pixels that becomes one token.
PATCH = 8
#: Side of the map from which content-aware positions are made, whatever the picture's size.
POSITIONS = 18


@dataclass(frozen=True)
class StyTr2Options:
    """StyTr2's network. The defaults are the paper's.

    Args:
        width: numbers of a token, a multiple of 8 and of ``heads``.
        heads: of each attention.
        encoder_layers: of the content's encoder, and of the style's.
        transfer_layers: of the transformer that puts the style's tokens in the content's places (the paper's decoder).
        mlp_ratio: hidden numbers of a layer's MLP for each number of a token.
        dropout: share of the activations, and of the attention, that training drops.
        window: side of the encoders' windows in tokens of 8 x 8 pixels, every second layer's shifted by half of it;
            0: every token sees all others, as in the paper. The transfer always sees all of the style.
        gradient_checkpointing: recompute each layer in the backward pass: less memory, about a third more time.
    """

    width: Count = 512
    heads: Count = 8
    encoder_layers: Count = 3
    transfer_layers: Count = 3
    mlp_ratio: Positive = 4.0
    dropout: Share = 0.1
    window: Whole = 0
    gradient_checkpointing: bool = False


class StyTr2Network(nn.Module):
    """A content and a style picture to the content in that style.

    Patches of 8 x 8 pixels become tokens. One encoder reads the content, with positions made of the content itself
    (CAPE, sec. 3.3), another the style, without positions: the order of a style's tokens means nothing. Then each of
    the content's tokens looks for those of the style that suit it, and AdaIN's convolutional decoder makes the picture.

    Args:
        options: see ``StyTr2Options``.

    Raises:
        ValueError: a width that is no multiple of 8 and of the heads.
    """

    def __init__(self, options: StyTr2Options = StyTr2Options()) -> None:
        super().__init__()
        width = options.width
        if width % options.heads or width % PATCH:
            raise ValueError(f"width {width} must be a multiple of heads ({options.heads}) and of {PATCH}")
        heads, hidden, dropout = options.heads, int(width * options.mlp_ratio), options.dropout
        encoder = partial(EncoderLayer, width, heads=heads, hidden=hidden, dropout=dropout)
        transfer = partial(TransferLayer, width, heads=heads, hidden=hidden, dropout=dropout)
        self.window, self.gradient_checkpointing = options.window, options.gradient_checkpointing
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.positions = nn.Conv2d(width, width, 1)
        self.content_encoder = nn.ModuleList(encoder() for _ in range(options.encoder_layers))
        self.style_encoder = nn.ModuleList(encoder() for _ in range(options.encoder_layers))
        self.transfer = nn.ModuleList(transfer() for _ in range(options.transfer_layers))
        self.norm = nn.LayerNorm(width)
        self.decoder = Decoder(DecoderOptions(gradient_checkpointing=options.gradient_checkpointing), width=width)

    def forward(self, content: Tensor, style: Tensor, pairs: Tensor | None = None) -> Tensor:
        """The content pictures in the styles.

        Args:
            content: ``[N, 3, H, W]`` in [-1, 1], of any size.
            style: ``[M, 3, H', W']`` in [-1, 1], of any size of its own.
            pairs: int64 ``[P, 2]``: numbers of a content and of a style; each is encoded once, however often it is
                named. None: each content with the style of its own number.

        Returns:
            ``[P, 3, H, W]`` in [-1, 1], though not bound to it.
        """
        tokens, positions, size = self.encode_content(content)
        styles = self.encode_style(style)
        if pairs is not None:
            tokens, positions = rows(tokens, pairs[:, 0]), rows(positions, pairs[:, 0])
            styles = rows(styles, pairs[:, 1])
        picture = self.decoder(self.transferred(tokens, positions, styles, size))
        return picture[..., : content.shape[2], : content.shape[3]]

    def encode_content(self, pictures: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Content pictures ``[N, 3, H, W]``: tokens and their positions ``[N, h w, D]`` each, and (h, w).

        h and w are H / 8 and W / 8, rounded up.
        """
        x = self._patches(pictures)
        height, width = x.shape[2:]
        positions = _enlarged(self.positions(like_weights(_pooled(x, POSITIONS), self)), height, width).to(x.dtype)
        tokens, places = _tokens(x), _tokens(positions)
        return self._encoded(self.content_encoder, tokens, places, (height, width)), places, (height, width)

    def encode_style(self, pictures: Tensor) -> Tensor:
        """Style pictures ``[N, 3, H, W]`` to tokens ``[N, h w, D]``."""
        x = self._patches(pictures)
        height, width = x.shape[2:]
        return self._encoded(self.style_encoder, _tokens(x), None, (height, width))

    def transferred(self, tokens: Tensor, positions: Tensor, style: Tensor, size: tuple[int, int]) -> Tensor:
        """The content's tokens in the style, as a map for ``decoder``: ``[N, D, h, w]``.

        Args:
            tokens, positions, size: of ``encode_content``.
            style: of ``encode_style``: ``[N, T, D]``, in any order.
        """
        for layer in self.transfer:
            tokens = checkpointed(layer, tokens, positions, style, enabled=self.gradient_checkpointing)
        return self.norm(tokens).transpose(1, 2).unflatten(2, size)

    def _patches(self, pictures: Tensor) -> Tensor:
        # The authors' pictures are in [0, 1].
        return self.patches(to_multiple(like_weights((pictures + 1) / 2, self), PATCH))

    def _encoded(self, layers: nn.ModuleList, x: Tensor, positions: Tensor | None, size: tuple[int, int]) -> Tensor:
        windows = self._windows(size, x.device)
        for number, layer in enumerate(layers):
            x = checkpointed(layer, x, positions, windows(number), enabled=self.gradient_checkpointing)
        return x

    def _windows(self, size: tuple[int, int], device: torch.device) -> Callable[[int], Windows | None]:
        """The windows of each layer, by its number."""
        if not self.window:
            return lambda number: None
        side = self.window
        both = [Windows(*size, window=side, shift=shift, device=device) for shift in (0, side // 2)]
        return lambda number: both[number % 2]


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


# PyTorch's own pooling and enlarging to any size have no fixed order of summation on GPUs, and no form in ONNX where
# sizes are free. Both are a matrix for each direction.


def _pooled(x: Tensor, side: int) -> Tensor:
    """``adaptive_avg_pool2d`` of maps ``[N, D, h, w]`` to ``[N, D, side, side]``; float32 or better."""

    def means(count: int) -> Tensor:
        """[side, count]: each row averages its part of so many places."""
        number, place = (torch.arange(size, device=x.device) for size in (side, count))
        first, end = number * count // side, -(-(number + 1) * count // side)
        inside = (place >= first[:, None]) & (place < end[:, None])
        return inside.to(at_least_float32(x.dtype)) / (end - first)[:, None]

    return _by_matrices(means(x.shape[2]), x, means(x.shape[3]))


def _enlarged(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear ``interpolate`` of maps ``[N, D, h, w]`` to ``[N, D, height, width]``; float32 or better."""

    def shares(before: int, after: int) -> Tensor:
        """[after, before]: how much of each place another place gets."""
        old, new = (torch.arange(n, device=x.device, dtype=at_least_float32(x.dtype)) for n in (before, after))
        place = ((new + 0.5) * before / after - 0.5).clamp(0, before - 1)
        return (1 - (place[:, None] - old).abs()).clamp_min(0)

    return _by_matrices(shares(x.shape[2], height), x, shares(x.shape[3], width))


def _by_matrices(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return rows @ x.to(rows.dtype) @ columns.T
