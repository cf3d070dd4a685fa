"""FIR filters against scipy's, and what up- and downsampling keep."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from lightning_modules.networks.stylegan2.filters import downsample, setup_filter, upfirdn2d, upsample


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("up", "down", "padding"), [(1, 1, (2, 1)), (2, 1, (3, 0)), (1, 2, (0, 2)), (2, 2, (-1, 4))])
def test_filtering_is_scipys_along_each_axis(up: int, down: int, padding: tuple[int, int], flip: bool) -> None:
    generator = np.random.default_rng(0)
    image, taps = generator.normal(size=(7, 6)), generator.normal(size=5)
    kernel = taps[::-1] if flip else taps
    expected = image
    for axis in (0, 1):
        length = up * image.shape[axis]
        stuffed = np.zeros([length if axis == place else side for place, side in enumerate(expected.shape)])
        stuffed[(slice(None, None, up), slice(None))[:: 1 - 2 * axis]] = expected
        pads = [tuple(max(pad, 0) for pad in padding) if axis == place else (0, 0) for place in (0, 1)]
        padded = np.pad(stuffed, pads)
        cut = slice(max(-padding[0], 0), padded.shape[axis] - max(-padding[1], 0))
        padded = padded[(cut, slice(None))[:: 1 - 2 * axis]]
        expected = np.apply_along_axis(lambda row: scipy.signal.convolve(row, kernel, "valid")[::down], axis, padded)
    found = upfirdn2d(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(taps),
        up=up,
        down=down,
        padding=padding,
        gain=9.0,
        flip=flip,
    )
    np.testing.assert_allclose(found[0, 0].numpy(), 9 * expected, atol=1e-12)


def test_a_constant_image_stays_constant_inside() -> None:
    taps = setup_filter()
    assert taps.tolist() == [0.125, 0.375, 0.375, 0.125]
    image = torch.full((1, 2, 8, 8), 3.0)
    assert torch.equal(upsample(image, taps)[:, :, 2:-2, 2:-2], torch.full((1, 2, 12, 12), 3.0))
    assert torch.equal(downsample(image, taps)[:, :, 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))


def test_filters_differentiate_twice() -> None:
    taps = torch.tensor([0.1, 0.5, 0.4], dtype=torch.float64)
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    for up, down in ((2, 1), (1, 2)):
        run = lambda image, u=up, d=down: upfirdn2d(image, taps, up=u, down=d, padding=(1, 1)).square()  # noqa: E731
        assert torch.autograd.gradgradcheck(run, (x,))
