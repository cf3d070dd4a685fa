"""BigGAN trains, resumes to the bit, and truncates its samples."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from launch.callbacks.ema import EMA
from lightning_modules.core.abilities import CannotDo
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.biggan import BigGAN
from lightning_modules.networks.biggan import BigGANDiscriminatorOptions, BigGANGeneratorOptions
from tests.formulas import waves
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
    whole, first, second = (small() for _ in range(3))
    bare_trainer(tmp_path, callbacks=[EMA(0.05)]).fit(whole, Rows(0, 6))
    trainer = bare_trainer(tmp_path, callbacks=[EMA(0.05)])
    # After the discriminator's step alone: whose turn it is has to be known again.
    trainer.fit(first, Rows(0, 3))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    for value in second.parameters():
        nn.init.zeros_(value)
    again = bare_trainer(tmp_path, callbacks=[EMA(0.05)], max_epochs=2)
    again.fit(second, Rows(3, 6), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    for name, value in second.averages["ema"].values.items():
        assert torch.equal(whole.averages["ema"].values[name], value), name


def test_recomputed_blocks_train_alike(tmp_path: Path) -> None:
    one, two = small(), small(gradient_checkpointing=True)
    before = copy.deepcopy(one.state_dict())
    for module in (one, two):
        bare_trainer(tmp_path).fit(module, Rows(0, 4))
    moved = 0.0
    for name, value in one.state_dict().items():
        torch.testing.assert_close(
            two.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=lambda t, n=name: f"{n}: {t}"
        )
        moved = max(moved, (value - before[name]).abs().max().item() if value.is_floating_point() else 0.0)
    assert moved > 1e-2


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
