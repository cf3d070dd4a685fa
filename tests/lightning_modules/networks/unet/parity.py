"""The comparison with the authors' U-Nets that all of ours go through."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.lightning_modules.networks.unet.formula import Mapped, fixture, inputs, summary, wave


def assert_equals_the_authors(name: str, mapped: Mapped, dtype: torch.dtype, *, augment: bool = True) -> None:
    """Outputs and gradients are those of the fixture ``name``, to 1e-10 in float64 and to 1e-5 in float32.

    Each is compared in units of the largest number among its like; gradients of weights by norm and one component.
    """
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    expected, names = fixture(name)
    mapped.network.to(dtype)
    mapped.fill_()
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
    for key, (norm, component) in zip(names, expected["gradients"], strict=True):
        ours = summary(gradients[key], key)
        assert np.abs(np.array(ours) - (norm, component)).max() <= tolerance * norm, key


def assert_near(ours: Tensor, expected: npt.NDArray[np.float64], tolerance: float) -> None:
    difference = np.abs(ours.detach().double().numpy() - expected).max()
    assert difference <= tolerance * np.abs(expected).max(), f"{difference} apart"
