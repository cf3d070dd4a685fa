"""The gate: what an export must agree with, and what is said where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from launch.export.gate import Figures, check, check_fid, compare
from lightning_modules.core.deployment import Deployable, Inputs, Port
from lightning_modules.metrics.similarity import SourceSimilarity


def doubling() -> Deployable:
    return Deployable(
        nn.Identity(),
        {"source": Port(torch.zeros(1, 3, 8, 8), "a picture")},
        "picture",
        "twice as bright",
        lambda index, seed, pictures: dict(pictures),
        lambda inputs: inputs["source"] * 2,
    )


def inputs() -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        yield {"source": torch.rand(1, 3, 8, 8, generator=generator) - 0.5}


def test_figures_of_known_differences() -> None:
    def noisy(given: Inputs) -> Tensor:
        made = given["source"] * 2
        made[0, 0, 0, 0] += 0.02
        return made

    figures = compare(doubling(), noisy, inputs(), SourceSimilarity(None, ("psnr",)))
    assert figures.samples == 3
    assert figures.difference == pytest.approx(0.02, rel=1e-4)
    # (0.02 / 2)^2 at one of 192 numbers; but what lies outside of [-1, 1] is cut.
    assert figures.similarity["psnr"] >= -10 * math.log10(0.01**2 / 192) - 1e-3
    assert "largest difference 2.0e-02" in str(figures)
    assert "psnr" in str(figures)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda given: (given["source"] * 2)[:, :, 1:], r"gives \[1, 3, 7, 8\], the run \[1, 3, 8, 8\]"),
        (lambda given: given["source"] / 0, "what is no number"),
    ],
)
def test_what_is_no_picture_at_all(made: Callable[[Inputs], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(doubling(), made, inputs(), None)


def test_bounds() -> None:
    figures = Figures(8, 3e-5, {"psnr": 90.0, "lpips/vgg16": 0.02})
    check(figures, tolerance=1e-4, max_lpips=0.05)
    with pytest.raises(ValueError, match=r"not the run: largest difference 3.0e-05.*1e-05 at most"):
        check(figures, tolerance=1e-5, max_lpips=None)
    with pytest.raises(ValueError, match=r"too far.*lpips/vgg16 0.02 of 8 samples; lpips/vgg16 may be 0.01"):
        check(figures, tolerance=None, max_lpips=0.01)
    with pytest.raises(ValueError, match="not the run"):
        check(Figures(8, math.nan, {}), tolerance=1e-4, max_lpips=None)
    with pytest.raises(ValueError, match="too far"):
        check(Figures(8, 0.0, {}), tolerance=None, max_lpips=0.01)


def test_a_bound_of_fid() -> None:
    figures = Figures(8, 0.1, {}, ("fid/inception-tf", 30.0, 31.5))
    check_fid(figures, 2.0)
    with pytest.raises(ValueError, match=r"fid/inception-tf 31.5 instead of 30; it may change by 1 "):
        check_fid(figures, 1.0)
