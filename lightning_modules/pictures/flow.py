"""Videos that do not flicker: what moved pictures carried along, and how much still flickers.

The motion is always that of the content, since it is the same whatever is made of it:

- ``motion_between``: dense optical flow (DIS, Kroeger et al. 2016) and where it can be believed (Ruder et al. 2016).
- ``TemporalSmoother``: each picture blended with the one before it, carried along by the motion.
- ``TemporalConsistency``: the warping error of Lai et al. (2018), "Learning Blind Video Temporal Consistency".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

#: Flow is computed with the longer side at most this long, in pixels: more takes time and finds no other motion.
FLOW_SIDE = 640
#: The smallest side that DIS takes, in pixels.
LEAST_SIDE = 12
#: How far a place may differ from where it came from to be believed the same: standard deviation, of [0, 1].
SAME_PLACE = 0.06
#: With less of the picture believed than this, the camera has been cut away from it.
CUT = 0.15
#: Detail is what differs from the mean of (2 r + 1)^2 pixels, and its strength a mean over (4 r + 1)^2.
DETAIL = 3

Field = NDArray[np.float32]


class Motion(NamedTuple):
    """Where each place of a frame was in the frame before it.

    Attributes:
        flow: [1, 2, H, W], pixels (x, y) to add to a place to get to where it was.
        visible: [1, 1, H, W], 1 where it could be seen there, 0 where it was hidden or outside.
        trust: [1, 1, H, W] in [0, 1], ``visible`` less the places that have changed their looks; 0 everywhere after
            a cut.
    """

    flow: Tensor
    visible: Tensor
    trust: Tensor


def motion_between(previous: Tensor, present: Tensor, *, longest: int = FLOW_SIDE) -> Motion:
    """What moved between two frames of one video.

    Visible is what passes the checks of Ruder et al. (2016), eqs. 5 and 6: the flows of both directions cancel, and no
    edge of a moving thing runs there.

    Args:
        previous: [1, 3, H, W] in [-1, 1].
        present: likewise, of the same size.
        longest: see ``FLOW_SIDE``.

    Returns:
        on the frames' device.
    """
    size = (present.shape[3], present.shape[2])
    before, now = (reduce(frame, longest) for frame in (previous, present))
    if min(now.shape) < LEAST_SIDE:
        # Nothing is seen to move in it, nor could anybody see it flicker.
        back = forth = np.zeros((*now.shape, 2), np.float32)
    else:
        back, forth = dense_flow(now, before), dense_flow(before, now)
    visible = consistent(back, forth)
    trust = visible * alike(before, now, back)
    if trust.mean() < CUT:
        trust[:] = 0
    scale = np.array(size, np.float32) / back.shape[1::-1]
    fields = [cv2.resize(field, size, interpolation=cv2.INTER_LINEAR) for field in (back * scale, visible, trust)]
    flow, seen, trusted = (
        torch.from_numpy(field).reshape(size[1], size[0], -1).permute(2, 0, 1)[None].to(present) for field in fields
    )
    return Motion(flow.contiguous(), (seen > 0.999).to(seen), trusted)


def reduce(frame: Tensor, longest: int) -> NDArray[np.uint8]:
    """A frame [1, 3, H, W] in [-1, 1] in grey, uint8 [h, w] with h, w <= ``longest``."""
    pixels = frame[0].float().add(1).mul(127.5).clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = longest / max(grey.shape)
    if factor < 1:
        height, width = (max(1, round(side * factor)) for side in grey.shape)
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def dense_flow(start: NDArray[np.uint8], end: NDArray[np.uint8]) -> Field:
    """Where each place of ``start`` is in ``end``: [H, W] uint8 twice to [H, W, 2], pixels (x, y)."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(start, end, None)  # type: ignore[call-overload]
    return np.asarray(flow, np.float32)


def sample(field: NDArray[Any], flow: Field) -> Field:
    """``field`` [H, W, ...] at places that ``flow`` [H, W, 2] leads to."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return cv2.remap(  # type: ignore[return-value]
        field.astype(np.float32),
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_REPLICATE,
    )


def consistent(back: Field, forth: Field) -> Field:
    """Where ``back`` [H, W, 2] and ``forth`` agree and are smooth: [H, W], 1 or 0 (Ruder et al. 2016, eqs. 5 and 6)."""
    rows, columns = np.indices(back.shape[:2], np.float32)
    x, y = columns + back[..., 0], rows + back[..., 1]
    inside = (x >= 0) & (x <= x.shape[1] - 1) & (y >= 0) & (y <= y.shape[0] - 1)
    carried = sample(forth, back)
    there, here = np.square(carried).sum(2), np.square(back).sum(2)
    cancels = np.square(carried + back).sum(2) <= 0.01 * (there + here) + 0.5
    slopes = [np.square(cv2.Sobel(back, -1, *order, ksize=1, scale=0.5)).sum(2) for order in ((1, 0), (0, 1))]
    smooth = slopes[0] + slopes[1] <= 0.01 * here + 0.002
    return (inside & cancels & smooth).astype(np.float32)


def alike(before: NDArray[np.uint8], now: NDArray[np.uint8], back: Field) -> Field:
    """How much the places of ``now`` look as they did in ``before``: [H, W] in [0, 1]."""
    # Averages of a neighbourhood: the sensor's noise is no change.
    difference = cv2.blur(np.abs(sample(before, back) - now), (3, 3)) / 255
    return np.exp(-np.square(difference / SAME_PLACE) / 2).astype(np.float32)


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """A picture [1, C, H, W] at the places that ``flow`` [1, 2, H, W] leads to; the border goes on outside.

    Bicubic: with bilinear weights a picture that is carried on from frame to frame melts away.
    """
    height, width = picture.shape[2:]
    x = torch.arange(width, device=flow.device) + 0.5
    y = torch.arange(height, device=flow.device)[:, None] + 0.5
    grid = torch.stack([(flow[:, 0] + x) * (2 / width) - 1, (flow[:, 1] + y) * (2 / height) - 1], -1)
    return F.grid_sample(picture, grid.to(picture), mode="bicubic", padding_mode="border", align_corners=False)


class TemporalConsistency(Metric):
    """How much a video flickers: the difference of its frames to those before them, carried along by the motion.

    Only visible places count, and the motion is the content's, not that of the video that is measured. Values are of
    [0, 1]. Lai et al. (2018) report the mean square; ``warped_psnr`` is that in decibels.

    - ``warping_error``: mean absolute difference.
    - ``warped_psnr``: -10 log10 of the mean square difference.

    States are sums: memory does not grow with the video, and several videos or ranks add up place by place.
    """

    full_state_update = False
    higher_is_better = False
    absolute: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("absolute", "square", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, carried: Tensor, now: Tensor, visible: Tensor) -> None:
        """One step.

        Args:
            carried: the frame before, at its new place: ``warp(before, motion.flow)``; [1, C, H, W] in [-1, 1].
            now: the frame, likewise.
            visible: [1, 1, H, W], 1 where they are compared: ``motion.visible``.
        """
        difference = (now - carried).float() / 2 * visible
        self.absolute += difference.abs().sum()
        self.square += difference.square().sum()
        self.count += visible.sum() * now.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """Scalars; NaN when nothing could be compared."""
        return {
            "warping_error": (self.absolute / self.count).float(),
            "warped_psnr": (-10 * torch.log10(self.square / self.count)).float(),
        }


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


class TemporalSmoother:
    """Stylised frames in, the same without flicker out, one by one: out_t = s_t + m_t λ (warp(out_{t-1}) - s_t).

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
