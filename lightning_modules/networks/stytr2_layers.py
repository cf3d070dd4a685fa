"""Layers of StyTr2's transformers: attention between two sets of tokens, and what is built of it."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.windows import Windows


class Attention(nn.Module):
    """Multi-head attention of queries to keys and values, by the fused kernels of ``scaled_dot_product_attention``.

    Starts as PyTorch's ``MultiheadAttention`` in the authors' code: queries', keys' and values' weights Glorot-uniform
    as one matrix, biases 0.

    Args:
        width: D, a multiple of ``heads``.
        heads: number of heads.
        dropout: share of the attention that training drops.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight, gain=1 / math.sqrt(2))
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, windows: Windows | None = None) -> Tensor:
        """What each query finds.

        Args:
            queries: ``[N, T, D]``.
            keys, values: ``[N, S, D]``.
            windows: of a map to which both queries and keys belong; None: every query sees all keys.

        Returns:
            ``[N, T, D]``.
        """
        projected = [self.query(queries), self.key(keys), self.value(values)]
        if windows is not None:
            projected = [windows.split(tokens) for tokens in projected]
        mask = None if windows is None or windows.mask is None else windows.mask.repeat(len(queries), 1, 1, 1)
        query, key, value = (tokens.unflatten(2, (self.heads, -1)).transpose(1, 2) for tokens in projected)
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        found = found.transpose(1, 2).flatten(2)
        return self.output(found if windows is None else windows.merge(found))


class TokenReLU(nn.Module):
    """Two layers with a ReLU between, for each token by itself.

    Args:
        width: numbers of a token.
        hidden: numbers between the layers.
        dropout: share of these that training drops.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand, self.output = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = dropout
        for layer in (self.expand, self.output):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, T, D]`` to the same shape."""
        return self.output(F.dropout(F.relu(self.expand(x)), self.dropout, self.training))


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each added and then normalised (post-norm, Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        width: numbers of a token.
        heads: of the attention.
        hidden: of the MLP.
        dropout: share of the activations, and of the attention, that training drops.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attention, self.norm1 = Attention(width, heads, dropout), nn.LayerNorm(width)
        self.mlp, self.norm2 = TokenReLU(width, hidden, dropout), nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor | None = None, windows: Windows | None = None) -> Tensor:
        """Tokens ``[N, T, D]``; ``positions``: as many, added to queries and keys; ``windows``: see ``Attention``."""
        placed = x if positions is None else x + positions
        x = self.norm1(x + self.dropout(self.attention(placed, placed, x, windows)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class TransferLayer(nn.Module):
    """Twice attention from the content to the style (sec. 3.2, eqs. 5 and 6), then an MLP; post-norm.

    Unlike in Vaswani et al.'s decoder, whose first attention is among its own tokens, both look at the style.

    Args:
        width: numbers of a token.
        heads: of each attention.
        hidden: of the MLP.
        dropout: share of the activations, and of the attention, that training drops.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.first, self.norm1 = Attention(width, heads, dropout), nn.LayerNorm(width)
        self.second, self.norm2 = Attention(width, heads, dropout), nn.LayerNorm(width)
        self.mlp, self.norm3 = TokenReLU(width, hidden, dropout), nn.LayerNorm(width)

    def forward(self, content: Tensor, positions: Tensor, style: Tensor) -> Tensor:
        """The content's tokens and positions ``[N, T, D]`` with the style's ``[N, S, D]``: ``[N, T, D]``."""
        x = self.norm1(content + self.dropout(self.first(content + positions, style, style)))
        x = self.norm2(x + self.dropout(self.second(x + positions, style, style)))
        return self.norm3(x + self.dropout(self.mlp(x)))
