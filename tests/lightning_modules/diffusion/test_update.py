"""Whole updates of EDM against its authors' loss, preconditioning, network and optimizer (see fixtures/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.diffusion.edm import EDM
from lightning_modules.networks.denoisers import DenoiserOptions
from tests.lightning_modules.networks.unet.formula import RESIDUAL_BLOCK, Mapped, keys, summary, wave
from tests.lightning_modules.networks.unet.test_song import OUTSIDE
from tests.trainers import bare_trainer

OUT = Path(__file__).parent / "fixtures" / "edm_update.npz"
#: The last image has no class.
LABELS = (1, 3, 4)
#: Of each step: what the images' ln sigma are drawn by.
LEVELS = ((-1.1, 0.2, 0.9), (0.5, -0.4, 1.7), (-2.0, 0.0, 0.3))
LR = 1e-3
#: Of the size of the gradients, or a number that is nothing but rounding would step as far as any other.
EPS = 1.0
#: The authors sum up an image's pixels, of which our loss is the mean.
PIXELS = 3 * 16 * 16


def images(dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(0.5 * wave("images", (3, 3, 16, 16))).to(dtype)


def noise(step: int, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(2**0.5 * wave(f"noise {step}", (3, 3, 16, 16))).to(dtype)


class Fixed(EDM):
    """Draws the fixture's noise levels and noise."""

    def randn(self, count: int, *shape: int) -> Tensor:
        dtype = self.dtype
        assert isinstance(dtype, torch.dtype)
        return noise(self.steps_done, dtype) if shape else torch.tensor(LEVELS[self.steps_done], dtype=dtype)


class Gradients(L.Callback):
    """Keeps the first step's."""

    def __init__(self, mapped: Mapped) -> None:
        self.mapped = mapped
        self.first: dict[str, Any] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.first = self.first or {name: gradient.copy() for name, gradient in self.mapped.gradients().items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_three_updates_are_those_of_the_authors(dtype: torch.dtype, tmp_path: Path) -> None:
    """Losses of each image, the first step's gradients, and how far all three steps moved each weight."""
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    with np.load(OUT) as file:
        expected = {key: file[key] for key in file.files}
    names = str(expected["names"]).split()
    module = Fixed(
        resolution=16,
        num_classes=4,
        label_dropout=0.0,
        network=DenoiserOptions(width=16, multipliers=(1, 2), blocks=1, attention_resolutions=(8,), dropout=0.0),
        optimizer=OptimizerOptions(lr=LR, eps=EPS / PIXELS),
    ).to(dtype)
    mapped = Mapped(module.network, blocks=keys(16, 2, 1), within=RESIDUAL_BLOCK, outside=OUTSIDE, heads=1)
    mapped.fill_()
    before = weights(mapped)
    batch = {"image": images(dtype), "label": torch.tensor(LABELS)}
    sigma = (module.P_mean + module.P_std * torch.tensor(LEVELS[0], dtype=dtype)).exp()
    each = [
        module._losses(
            images(dtype)[i : i + 1], batch["label"][i : i + 1], sigma[i : i + 1], noise(0, dtype)[i : i + 1]
        )
        for i in range(3)
    ]
    found = PIXELS * np.array([losses["loss"].item() for losses in each])
    np.testing.assert_allclose(found, expected["losses"][0], rtol=tolerance)

    gradients, steps = Gradients(mapped), Losses()
    precision = "64-true" if dtype == torch.float64 else "32-true"
    trainer = bare_trainer(tmp_path, callbacks=[gradients, steps], precision=precision)
    trainer.fit(module, DataLoader([batch] * 3, batch_size=None))
    assert len(steps.seen) == 3
    # The means over a step's images are logged in float32.
    np.testing.assert_allclose(PIXELS * np.array(steps.seen), expected["losses"].mean(1), rtol=1e-5)
    ours = {name: PIXELS * gradient for name, gradient in gradients.first.items()}
    moved = {name: value - before[name] for name, value in weights(mapped).items()}
    assert sorted(ours) == sorted(names)
    for key, values in (("gradients", ours), ("changes", moved)):
        for name, wanted in zip(names, expected[key], strict=True):
            # A change is the difference of two weights, which have been rounded.
            rounded = torch.finfo(dtype).eps * np.linalg.norm(before[name]) if key == "changes" else 0.0
            away = np.abs(np.array(summary(values[name], name)) - wanted).max()
            assert away <= tolerance * wanted[0] + rounded, (key, name)


def weights(mapped: Mapped) -> dict[str, Any]:
    """The parameters, by the authors' names and in their shapes."""
    return {name: mapped.theirs(name, tensor.detach().double().numpy().copy()) for name, tensor in mapped}


class Losses(L.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *rest: Any) -> None:
        self.seen.append(pl_module.pop_mean_losses()["network/loss"])
