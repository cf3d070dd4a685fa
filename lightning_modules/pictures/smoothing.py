"""Removes flicker from videos: blends each picture with the one before, warped by the content's motion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.metrics.temporal import TemporalConsistency
from lightning_modules.pictures.flow import motion_between, warp

#: Detail is what differs from the mean of (2 r + 1)^2 pixels, and its strength a mean over (4 r + 1)^2.
DETAIL = 3


class TemporalSmoother:
    """Removes flicker from stylised frames, one by one: out_t = s_t + m_t λ (warp(out_{t-1}) - s_t).

    See ``blend`` for what keeps the pictures sharp. Memory: one frame of the content and two of the style, however long
    the video is.

    Args:
        smooth: λ, from 0 (nothing) to below 1.

    Attributes:
        raw: flicker of the frames that came in.
        smoothed: of those that went out.

    Raises:
        ValueError: ``smooth`` is not in [0, 1).
    """

    def __init__(self, smooth: float) -> None:
        if not 0 <= smooth < 1:
            raise ValueError(f"smooth is {smooth}; it goes from 0 (every frame for itself) to below 1")
        self.smooth = smooth
        self.raw = TemporalConsistency()
        self.smoothed = TemporalConsistency()
        self._before: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, content: Tensor, styled: Tensor) -> Tensor:
        """The next frame.

        Args:
            content: [1, 3, H, W] in [-1, 1].
            styled: what was made of it, of any size, but of one all along.

        Returns:
            as ``styled``.
        """
        if content.shape[2:] != styled.shape[2:]:
            content = F.interpolate(content, styled.shape[2:], mode="bilinear", antialias=True)
        out = styled
        if self._before is not None:
            before, raw, smoothed = self._before
            motion = motion_between(before, content.to(styled))
            carried_raw, carried = warp(torch.cat([raw, smoothed], 1), motion.flow).chunk(2, 1)
            # At 0 not even the rounding differs.
            out = blend(styled, carried, motion.trust, self.smooth) if self.smooth else styled
            self.raw.to(styled.device).update(carried_raw, styled, motion.visible)
            self.smoothed.to(styled.device).update(carried, out, motion.visible)
        self._before = (content.to(styled), styled, out)
        return out


def blend(styled: Tensor, carried: Tensor, trust: Tensor, smooth: float) -> Tensor:
    """s + m λ (c - s), with the detail that this averages away brought back to the strength it has in s.

    The texture that a style invents does not stick to things, so that averages of it are blurred. Hence the detail is
    amplified as in the variance-preserving blending of Heitz and Neyret (2018), by at most what two unrelated
    textures lose, and never beyond the strength it has around that place in s.

    Args:
        styled: s, [1, C, H, W] in [-1, 1].
        carried: c, likewise.
        trust: m, [1, 1, H, W] in [0, 1].
        smooth: λ.

    Returns:
        [1, C, H, W] in [-1, 1].
    """
    share = trust * smooth
    mixed = torch.lerp(styled, carried, share)
    detail = mixed - box(mixed, DETAIL)
    wanted, found = (strength(field) for field in (styled - box(styled, DETAIL), detail))
    lost = (share.square() + (1 - share).square()).rsqrt()
    gain = torch.minimum((wanted / (found + 1e-6)).sqrt().clamp_min(1), lost)
    return (mixed + (gain - 1) * detail).clamp(-1, 1)


def box(picture: Tensor, radius: int) -> Tensor:
    """Means over (2 radius + 1)^2 pixels of [1, C, H, W]; the border goes on outside."""
    padded, side = F.pad(picture, (radius,) * 4, mode="replicate"), 2 * radius + 1
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def strength(detail: Tensor) -> Tensor:
    """Mean square around each place, over all channels so that no hue is favoured: [1, C, H, W] to [1, 1, H, W]."""
    return box(detail.square().mean(1, keepdim=True), 2 * DETAIL)
