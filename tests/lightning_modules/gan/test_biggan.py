"""BigGAN trains, resumes to the bit, and truncates its samples."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.callbacks.ema import EMA
from lightning_modules.core.abilities import CannotDo
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.biggan import BigGAN
from lightning_modules.networks.biggan import BigGANDiscriminatorOptions, BigGANGeneratorOptions
from tests.formulas import waves
from tests.lightning_modules.gan.alike import moved_alike, resumed_to_the_bit
from tests.trainers import bare_trainer

CLASSES, BATCH = 3, 8
#: Its steps do not blow rounding errors up.
SMOOTH = OptimizerOptions(lr=2e-2, beta1=0.0, eps=1e-2)


def small(*, gradient_checkpointing: bool = False, **options: Any) -> BigGAN:
    torch.manual_seed(0)
    common: dict[str, Any] = {"attention_resolution": 16, "gradient_checkpointing": gradient_checkpointing}
    chosen: dict[str, Any] = {
        "resolution": 32,
        "latent_dim": 8,
        "num_classes": CLASSES,
        "generator": BigGANGeneratorOptions(2, shared_dim=4, **common),
        "discriminator": BigGANDiscriminatorOptions(2, **common),
        "generator_optimizer": SMOOTH,
        "discriminator_optimizer": SMOOTH,
    }
    return BigGAN(**{**chosen, **options})


class Rows:
    """Batches of steps ``first`` to ``until``."""

    def __init__(self, first: int, until: int) -> None:
        self.steps = range(first, until)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            images = waves(BATCH, 3, 32, 32, number=100 + step).float()
            labels = (torch.arange(BATCH) + step) % CLASSES
            yield {"image": images, "label": labels, "position": (step + 1) * BATCH}


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    # Half-way is after the discriminator's step alone: whose turn it is has to be known again.
    resumed_to_the_bit(tmp_path, small, Rows, until=6, batch_size=BATCH, average=lambda: EMA(0.05))


def test_recomputed_blocks_train_alike(tmp_path: Path) -> None:
    one, two = small(), small(gradient_checkpointing=True)
    before = copy.deepcopy(one.state_dict())
    for module in (one, two):
        bare_trainer(tmp_path).fit(module, Rows(0, 4))
    moved_alike(one, two, before, rtol=1e-4, atol=1e-6)


def test_truncation_moves_samples_inwards_and_says_so() -> None:
    module = small().eval()
    index = torch.arange(100)
    free = module.latents(index, seed=0)
    undo = module.sample_with({"truncation_psi": 0.5})
    held = module.latents(index, seed=0)
    assert held.abs().max() <= 1 < free.abs().max()
    assert torch.equal(held.flatten().argsort(), free.flatten().argsort())
    assert module.sampled() == {"truncation_psi": 0.5}
    module.sample_with(undo)
    assert torch.equal(module.latents(index, seed=0), free)
    assert module.sampled() == {}
    with pytest.raises(CannotDo, match="no steps"):
        module.sample_with({"steps": 4})
    with pytest.raises(ValueError, match="truncation_psi"):
        module.sample_with({"truncation_psi": 1.5})


def test_pictures_are_in_range_and_of_their_class() -> None:
    module = small().eval()
    images = module.generate(torch.arange(6), seed=0)
    assert images.shape == (6, 3, 32, 32)
    assert images.abs().max() <= 1
    other = module.generate(torch.arange(6), seed=0, labels=(torch.arange(6) + 1) % CLASSES)
    assert not torch.equal(images, other)
