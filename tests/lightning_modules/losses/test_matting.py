"""The matting Laplacian against the sparse matrix of CAP-VSTNet's code, and what it must not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.losses.matting import matting_laplacian_loss
from tests.formulas import waves

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "cap_vst.npz"


def test_loss_and_gradient_are_those_of_the_authors_matrix() -> None:
    with np.load(REFERENCE) as reference:
        guide = torch.from_numpy(reference["laplacian/guide"]).double().permute(2, 0, 1)[None] / 127.5 - 1
        expected, gradient = reference["laplacian/loss"].item(), torch.from_numpy(reference["laplacian/gradient"])
    images = waves(1, 3, 12, 15, number=5).requires_grad_()
    loss = matting_laplacian_loss(images, guide)
    # The authors keep their matrix in float32.
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad[0] * 2, gradient, rtol=1e-4, atol=1e-6)


def test_affine_maps_of_the_guide_cost_nothing() -> None:
    guide = waves(2, 3, 12, 15, number=1)
    mixed = torch.einsum("ij,njhw->nihw", waves(3, 3, number=2), guide) * 0.3 + 0.1
    assert matting_laplacian_loss(mixed, guide) < 1e-5
    flat = torch.zeros(1, 3, 8, 8)
    assert matting_laplacian_loss(flat + 0.3, flat) < 1e-9
    assert matting_laplacian_loss(waves(1, 3, 8, 8), flat) > 0.1


def test_the_gradient_is_cut_picture_by_picture() -> None:
    guide, images = waves(2, 3, 12, 15, number=1).float(), waves(2, 3, 12, 15, number=2).float()

    def gradient(count: int, limit: float | None) -> torch.Tensor:
        given = images[:count].clone().requires_grad_()
        matting_laplacian_loss(given, guide[:count], gradient_limit=limit).backward()
        assert given.grad is not None
        return given.grad[0] * count

    whole, cut = gradient(1, None), gradient(1, 0.01)
    torch.testing.assert_close(cut * 2, (whole * 2).clamp(-0.01, 0.01))
    assert (cut != whole).any()
    torch.testing.assert_close(gradient(2, 0.01), cut)


def test_a_picture_without_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="5 x 2 pixels has no window"):
        matting_laplacian_loss(torch.zeros(1, 3, 2, 5), torch.zeros(1, 3, 2, 5))
