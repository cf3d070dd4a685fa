"""Maps of shares as pictures."""

from __future__ import annotations

import torch

from lightning_modules.pictures.regions import palette, regions


def test_a_pixel_has_the_colour_of_its_part_or_a_mixture() -> None:
    shares = torch.zeros(1, 3, 2, 2)
    shares[0, 1, 0, 0] = 0.2
    shares[0, 0, 1, 1], shares[0, 2, 1, 1] = 0.5, 1.5
    found, colours = regions(shares, 4), palette(3)
    assert found.shape == (1, 3, 4, 4)
    torch.testing.assert_close(found[0, :, :2, :2], colours[1, :, None, None].expand(3, 2, 2))
    torch.testing.assert_close(found[0, :, 3, 3], 0.25 * colours[0] + 0.75 * colours[2])


def test_colours_differ() -> None:
    for count in (2, 5, 16, 32):
        apart = torch.cdist(palette(count), palette(count)) + 10 * torch.eye(count)
        assert apart.min() > 0.15
        assert palette(count).abs().max() <= 1
