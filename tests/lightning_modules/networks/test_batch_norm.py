"""Conditional batch norm against its formula."""

from __future__ import annotations

import numpy as np
import torch

from lightning_modules.networks.batch_norm import ConditionalBatchNorm2d


def test_conditional_batch_norm_is_batch_norm_with_the_labels_affine() -> None:
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(5, num_classes=3)
    layer.scale.data.normal_()
    layer.shift.data.normal_()
    x, labels = torch.randn(8, 5, 4, 4) * 3 + 1, torch.tensor([0, 2, 1, 1, 0, 2, 2, 2])
    ours = layer(x, labels).detach().numpy()
    maps = x.double().numpy()
    mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
    normalised = (maps - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    for row, label in enumerate(labels.tolist()):
        scale, shift = layer.scale[label].detach().numpy(), layer.shift[label].detach().numpy()
        np.testing.assert_allclose(
            ours[row], normalised[row] * scale[:, None, None] + shift[:, None, None], atol=1e-5, rtol=1e-4
        )
    np.testing.assert_allclose(layer.running_mean, 0.1 * mean, rtol=1e-4)  # type: ignore[arg-type]
