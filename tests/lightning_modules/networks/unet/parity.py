"""The comparison with the authors' U-Nets that all of ours go through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.lightning_modules.networks.unet.formula import Mapped, fixture, inputs, summary, wave


def assert_equals_the_authors(
    name: str, mapped: Mapped, dtype: torch.dtype, *, augment: bool = True, prepare: Callable[[], None] | None = None
) -> None:
    """Outputs and gradients are those of the fixture ``name``, to 1e-10 in float64 and to 1e-5 in float32.

    Each is compared in units of the largest number among its like; gradients of weights by norm and one component.
    ``prepare`` is called once the weights are set.
    """
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    expected, names = fixture(name)
    mapped.network.to(dtype)
    mapped.fill_()
    if prepare is not None:
        prepare()
    images, noise, labels, augmentation = inputs(3, 16, dtype)
    leaves = {"images": images, "noise": noise} | ({"augment": augmentation} if augment else {})
    for leaf in leaves.values():
        leaf.requires_grad_()
    out = mapped.network(images, noise, labels, *([augmentation] if augment else []))
    loss = (out * torch.from_numpy(wave("loss", tuple(out.shape)))).sum()
    if "logvar" in expected:
        logvar = mapped.network.logvar(noise)
        loss = loss + (logvar * torch.tensor([1.0, -2.0, 3.0])).sum()
        assert_near(logvar, expected["logvar"], tolerance)
    loss.backward()
    assert out.dtype == dtype
    assert_near(out, expected["out"], tolerance)
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        assert_near(leaf.grad, expected[key], tolerance)
    gradients = mapped.gradients()
    assert sorted(gradients) == sorted(names)
    # The gradient of a single number is a sum in which much cancels: these are measured by the largest of them.
    pairs = dict(zip(names, expected["gradients"], strict=True))
    largest = max((norm for key, (norm, _) in pairs.items() if not gradients[key].ndim), default=0.0)
    for key, (norm, component) in pairs.items():
        ours = summary(gradients[key], key)
        unit = norm if gradients[key].ndim else largest
        assert np.abs(np.array(ours) - (norm, component)).max() <= tolerance * unit, key


def assert_differentiates_forward(network: nn.Module) -> None:
    """Products with the Jacobian, which consistency models and MeanFlow ask for, are the difference quotients.

    Fused attention has none, so it is computed plainly; ``network`` is in float64.
    """
    images, noise, labels, _ = inputs(3, 16, torch.float64)
    along = (torch.ones_like(images) / 3, torch.ones_like(noise))
    with sdpa_kernel(SDPBackend.MATH):
        _, product = torch.func.jvp(lambda x, level: network(x, level, labels), (images, noise), along)
    step = 1e-5
    ahead = network(images + step * along[0], noise + step * along[1], labels)
    behind = network(images - step * along[0], noise - step * along[1], labels)
    torch.testing.assert_close(product, (ahead - behind) / (2 * step), atol=1e-7, rtol=1e-6)


def assert_near(ours: Tensor, expected: npt.NDArray[np.float64], tolerance: float) -> None:
    difference = np.abs(ours.detach().double().numpy() - expected).max()
    assert difference <= tolerance * np.abs(expected).max(), f"{difference} apart"
