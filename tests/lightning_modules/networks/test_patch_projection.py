"""The projection of CUT: which places it takes, and that it ends on the sphere."""

from __future__ import annotations

import torch

from lightning_modules.networks.patch_projection import PatchProjection
from tests.formulas import set_weights_, waves


def test_each_picture_gives_its_own_places() -> None:
    projection = PatchProjection([3, 4], 8).double()
    set_weights_(projection)
    maps = [waves(2, 3, 5, 6), waves(2, 4, 2, 3, number=1)]
    places = [torch.tensor([[0, 29, 7], [8, 1, 12]]), torch.tensor([[5, 0], [3, 4]])]
    for mlp, x, chosen, found in zip(projection.mlps, maps, places, projection(maps, places), strict=True):
        assert found.shape == (2, chosen.shape[1], 8)
        for picture in range(2):
            for row, place in enumerate(chosen[picture].tolist()):
                projected = mlp(x[picture, :, place // x.shape[3], place % x.shape[3]])
                torch.testing.assert_close(found[picture, row], projected / (projected.norm() + 1e-7))


def test_lengths_are_one_from_the_first_step_on_and_under_autocast() -> None:
    torch.manual_seed(0)
    projection = PatchProjection([64])
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = projection([torch.randn(1, 64, 8, 8)], [torch.arange(64)[None]])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=2), torch.ones(1, 64), rtol=0, atol=1e-3)


def test_its_weights_begin_as_the_authors() -> None:
    torch.manual_seed(0)
    first, _, second = PatchProjection([128]).mlps[0]  # type: ignore[misc]
    for layer in (first, second):
        expected = 0.02 * (2 / sum(layer.weight.shape)) ** 0.5
        assert abs(layer.weight.std() / expected - 1) < 0.02
        assert not layer.bias.any()
