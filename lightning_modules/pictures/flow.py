"""Motion between two frames: dense optical flow (DIS, Kroeger et al. 2016), and where it can be believed (Ruder et al.
2016)."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: Flow is computed with the longer side at most this long, in pixels: more takes time and finds no other motion.
FLOW_SIDE = 640
#: The smallest side that DIS takes, in pixels.
LEAST_SIDE = 12
#: How far a place may differ from where it came from to be believed the same: standard deviation, of [0, 1].
SAME_PLACE = 0.06
#: With less of the picture believed than this, the camera has been cut away from it.
CUT = 0.15

Field = NDArray[np.float32]


class Motion(NamedTuple):
    """Motion of a frame: the place of each of its pixels in the frame before.

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
    """Estimates the motion between two frames of a video.

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
    """Dense flow from ``start`` to ``end``: two images uint8 [H, W] to [H, W, 2], in pixels (x, y)."""
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
    """Mask [H, W], 1 where ``back`` and ``forth`` [H, W, 2] agree and are smooth (Ruder et al. 2016, eqs. 5 and 6)."""
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
    """Similarity of ``now`` to ``before`` along the flow ``back``: [H, W] in [0, 1]."""
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
