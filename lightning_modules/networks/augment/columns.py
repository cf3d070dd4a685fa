"""The random numbers of one augmentation, and which images a transformation applies to."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, where

#: Numbers that the whole pipeline takes for each image: whatever is switched on, the same draw has the same meaning.
UNIFORMS, NORMALS = 29, 12


class Noise(Protocol):
    """Where random numbers come from: an ``ImageFamily``."""

    def rand(self, count: int, *shape: int) -> Tensor: ...

    def randn(self, count: int, *shape: int) -> Tensor: ...


class Columns:
    """Random numbers of N images, handed out column by column.

    Args:
        uniforms: in [0, 1), ``[N, UNIFORMS]``.
        normals: standard normal, ``[N, NORMALS]``.
        p: probability of each transformation, a scalar tensor: nobody reads it.
    """

    def __init__(self, uniforms: Tensor, normals: Tensor, p: Tensor) -> None:
        self._uniforms, self._normals = iter(uniforms.unbind(1)), iter(normals.unbind(1))
        self.p = p

    @classmethod
    def drawn(cls, noise: Noise, count: int, p: Tensor) -> Columns:
        """Newly drawn numbers of ``count`` images."""
        return cls(noise.rand(count, UNIFORMS), noise.randn(count, NORMALS), p)

    def uniform(self) -> Tensor:
        """The next uniform numbers, ``[N]``."""
        return next(self._uniforms)

    def normal(self) -> Tensor:
        """The next normal numbers, ``[N]``."""
        return next(self._normals)

    def gated(self, value: Tensor, identity: float, probability: Tensor | None = None) -> Tensor:
        """``value`` ``[N]`` or ``[N, D]`` with the probability (``p``, or another one), otherwise ``identity``."""
        applies = self.uniform() < (self.p if probability is None else probability)
        return where(applies.view(-1, *[1] * (value.dim() - 1)), value, value.new_full((), identity))

    def skip(self, uniforms: int, normals: int) -> None:
        """Leaves out columns of transformations that are switched off."""
        for _ in range(uniforms):
            next(self._uniforms)
        for _ in range(normals):
            next(self._normals)
