"""The matting Laplacian: how far a picture is from being, in each little window, an affine map of another's colours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Added to the variances of a window's colours in [0, 1], over the number of its pixels (Levin et al. 2008).
EPSILON = 1e-7


def matting_laplacian_loss(images: Tensor, guide: Tensor, *, gradient_limit: float | None = None) -> Tensor:
    """Photorealism, Σ_c V_cᵀ M V_c / (H W) with the matting Laplacian M of ``guide`` (Levin et al. 2008, eq. 12).

    Luan et al. 2017 (arXiv:1703.07511, eq. 2) took it for style transfer, over windows of 3 x 3 pixels. M is never
    made: V_cᵀ M V_c is the sum over windows of 9 times the variance of V_c that no affine map of the guide's colours
    explains, which box filters give. In float64, since windows of one colour leave nothing but differences.

    Args:
        images: [N, C, H, W] in [-1, 1].
        guide: [N, 3, H, W] in [-1, 1]; a constant, it has no gradient.
        gradient_limit: the gradient of a picture's loss is cut to this size in each value; None: it is not cut.

    Returns:
        float32 scalar: the mean over the pictures.

    Raises:
        ValueError: a side is shorter than a window.
    """
    if min(images.shape[2:]) < 3:
        raise ValueError(f"a picture of {images.shape[3]} x {images.shape[2]} pixels has no window of 3 x 3")
    losses: Tensor = _MattingLaplacian.apply(images, guide, gradient_limit)
    return losses.mean()


class _MattingLaplacian(torch.autograd.Function):
    """The loss of each picture, float32 [N]; its gradient is cut picture by picture, whatever the batch."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, guide: Tensor, limit: float | None) -> Tensor:
        with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            values = ((images.detach().double() + 1) / 2).requires_grad_()
            losses = unexplained(values, (guide.detach().double() + 1) / 2)
            (gradient,) = torch.autograd.grad(losses.sum(), values)
        if limit is not None:
            gradient = gradient.clamp(-limit, limit)
        # Half, since a step of 1 in [0, 1] is one of 2 in [-1, 1].
        ctx.save_for_backward((gradient / 2).to(images.dtype))
        return losses.detach().float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return slope.view(-1, 1, 1, 1).to(gradient.dtype) * gradient, None, None


def unexplained(values: Tensor, colours: Tensor) -> Tensor:
    """Σ over channels and windows of the variance in ``values`` that ``colours`` do not explain, times 9 / (H W).

    Args:
        values: [N, C, H, W] in [0, 1].
        colours: [N, 3, H, W] in [0, 1].

    Returns:
        [N], in the inputs' dtype.
    """
    height, width = values.shape[2:]

    def means(x: Tensor) -> Tensor:
        return F.avg_pool2d(x.flatten(0, -4).flatten(0, -3)[:, None], 3, 1).view(*x.shape[:-2], height - 2, width - 2)

    # [N, windows, ...]: 3 x 3 matrices, and columns for each channel.
    centre, ours = means(colours), means(values)
    spread = means(colours[:, :, None] * colours[:, None]) - centre[:, :, None] * centre[:, None]
    common = means(colours[:, :, None] * values[:, None]) - centre[:, :, None] * ours[:, None]
    matrices = spread.flatten(3).permute(0, 3, 1, 2)
    matrices = matrices + EPSILON / 9 * torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    columns = common.flatten(3).permute(0, 3, 1, 2)
    explained = (columns * torch.linalg.solve(matrices, columns)).sum((1, 2, 3))
    variance = (means(values.square()) - ours.square()).sum((1, 2, 3))
    return 9 * (variance - explained) / (height * width)
