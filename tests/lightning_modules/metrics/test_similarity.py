"""Similarity of results with their sources, against scikit-image."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from lightning_modules.metrics.similarity import SourceSimilarity, structural_similarity
from tests.pictures import photographs, scikit_ssim


@pytest.mark.parametrize("side", [11, 16, 32, 64])
def test_ssim_has_windows_inside_of_the_pictures_alone(side: int) -> None:
    pictures = photographs(64)[:, :, :side, :side].mean(1, keepdim=True).float()
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    # A dark edge: whoever mirrors pictures over their edges counts it more often.
    others = (0.8 * pictures + 0.1 * noise).clamp(-1, 1)
    others[:, :, :3] = -0.6
    values = [((images[:, 0].double() + 1) / 2) for images in (pictures, others)]
    assert float(structural_similarity(pictures, others)) == pytest.approx(scikit_ssim(*values), abs=1e-9)
    assert float(structural_similarity(pictures, pictures)) == pytest.approx(1)


def test_pictures_smaller_than_a_window_have_no_ssim() -> None:
    small = torch.zeros(2, 1, 10, 16)
    with pytest.raises(ValueError, match="ssim looks at 11 x 11 pixels at a time: pictures of 10 x 16 have none"):
        structural_similarity(small, small)


def test_means_are_over_pictures() -> None:
    generator = torch.Generator().manual_seed(1)
    sources, made = (torch.randint(0, 256, (5, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2))
    metric = SourceSimilarity(None, ("ssim", "psnr"))
    for part in torch.arange(5).split(3):
        metric.update(sources[part], made[part])
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    grey = [torch.einsum("nchw,c->nhw", images.double(), weights) / 255 for images in (sources, made)]
    psnr = [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255) for a, b in zip(sources, made, strict=True)]
    found = metric.compute()
    assert found["ssim"] == pytest.approx(scikit_ssim(*grey), abs=1e-6)
    assert found["psnr"] == pytest.approx(sum(psnr) / 5, rel=1e-5)
