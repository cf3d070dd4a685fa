"""StyleGAN 1: losses and growing; it resumes to the bit in a fade; ranks and micro-batches train alike."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from launch.callbacks.ema import EMA
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.stylegan1 import StyleGAN1
from lightning_modules.networks.stylegan1.discriminator import DiscriminatorOptions
from lightning_modules.networks.stylegan1.growing import GrowingOptions, at_detail
from lightning_modules.networks.stylegan1.synthesis import SynthesisOptions
from tests.lightning_modules.gan.alike import check_w_space, moved_alike, resumed_to_the_bit, two_ranks_alike
from tests.lightning_modules.gan.test_stylegan2 import AUGMENT, BATCH, Data, Rows, small
from tests.trainers import bare_trainer

WIDTHS: dict[str, Any] = {"channel_base": 128, "channel_max": 16}
#: 16 images at 8 px, then 32 images of fading: steps of 8 images begin at levels 1, 1, 1, 0.75, 0.5 and 0.25.
GROWING = GrowingOptions(8, training_kimg=0.016, transition_kimg=0.032)


def narrow(*, checkpointing: bool = False, features: int = 1, **options: Any) -> StyleGAN1:
    chosen: dict[str, Any] = {
        "synthesis": SynthesisOptions(**WIDTHS, gradient_checkpointing=checkpointing),
        "discriminator": DiscriminatorOptions(
            **WIDTHS, mapping_layers=2, minibatch_features=features, gradient_checkpointing=checkpointing
        ),
        "growing": GROWING,
        "path_length_weight": 0.0,
        "r1_interval": 1,
    }
    module = small(StyleGAN1, **{**chosen, **options})
    assert isinstance(module, StyleGAN1)
    # The first layer's instance norm is of a constant map as long as there is no noise: 0 / 0 but for rounding.
    for name, weight in module.generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(weight, 0.1)
    return module


def augmented() -> StyleGAN1:
    return narrow(augmentation=AUGMENT)


def fading() -> StyleGAN1:
    """A module whose first steps already fade."""
    return narrow(growing=GrowingOptions(8, training_kimg=0, transition_kimg=0.032))


def level(module: StyleGAN1) -> float:
    return module.discriminator.detail.item()


def test_the_level_of_detail_follows_the_images_seen(tmp_path: Path) -> None:
    module, levels = narrow(), []

    class Watch(EMA):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, *rest)
            levels.append(level(pl_module))
            assert pl_module.generator.synthesis.detail.item() == levels[-1]

    bare_trainer(tmp_path, callbacks=[Watch()]).fit(module, Rows(0, 8))
    assert levels == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    # The average makes images of the present level, not of an average one.
    assert module.averages["ema"].values["generator.synthesis.detail"].item() == 0


def test_r1_is_part_of_a_loss_of_real_images_without_more_detail() -> None:
    module = narrow(r1_gamma=10.0, num_classes=0).eval()
    for network in (module.generator.synthesis, module.discriminator):
        network.grow(0.5)
    batch = {"image": torch.rand(4, 1, 16, 16) * 2 - 1}
    module.fakes = lambda batch: torch.zeros_like(batch["image"])  # type: ignore[method-assign]
    losses = module.discriminator_losses(module._with_detail(batch))
    real = at_detail(batch["image"], torch.tensor([0.5]), 1).requires_grad_()
    logits = module.discriminator(real)
    (slope,) = torch.autograd.grad(logits.sum(), real)
    fake_logits = module.discriminator(torch.zeros_like(real))
    expected = F.softplus(-logits).mean() + F.softplus(fake_logits).mean()
    torch.testing.assert_close(losses["loss"], expected + 5 * slope.square().sum((1, 2, 3)).mean())
    assert losses["level_of_detail"] == 0.5


def test_styles_are_mixed_in_layers_that_are_there() -> None:
    module = narrow(growing=GrowingOptions(4, 1, 1))
    assert [module.level_of_detail(), module.mixable_layers()] == [2, 2]
    module.images_seen = 1001
    assert module.mixable_layers() == 4
    module.images_seen = 10_000
    assert module.mixable_layers() == module.generator.synthesis.num_ws == 6


def test_optimizers_are_as_they_were_given() -> None:
    optimizer = OptimizerOptions(lr=1e-3, beta1=0.0, beta2=0.99)
    module = narrow(generator_optimizer=optimizer, discriminator_optimizer=optimizer)
    assert module.optimization() == {"generator": optimizer, "discriminator": optimizer}


def test_its_space_w_is_that_of_a_stylegan() -> None:
    check_w_space(narrow().eval(), layers=6, styles=[(32, 12)] * 4 + [(16, 12)] * 2)


def test_it_resumes_to_the_bit_in_the_middle_of_a_fade(tmp_path: Path) -> None:
    # Stopped after four steps: at level 0.75, with 0.5 to come.
    whole = resumed_to_the_bit(tmp_path, augmented, Rows, until=8, batch_size=BATCH)
    assert level(whole) == 0
    half = torch.load(tmp_path / "half.ckpt", weights_only=False)["state_dict"]
    assert half["discriminator.detail"].item() == half["generator.synthesis.detail"].item() == 0.75


@pytest.mark.parametrize("other", [{"micro_batches": 2}, {"checkpointing": True}], ids=str)
def test_micro_batches_and_recomputed_blocks_train_like_the_whole(tmp_path: Path, other: dict[str, Any]) -> None:
    # Groups of the minibatch deviation are of a micro-batch.
    plain: dict[str, Any] = {"features": 0, "growing": GrowingOptions(8, 0, 0.032)}
    one, two = narrow(**plain), narrow(**plain, **other)
    before = copy.deepcopy(one.state_dict())
    bare_trainer(tmp_path).fit(one, Data(3))
    bare_trainer(tmp_path).fit(two, Data(3))
    assert level(one) == 0.5
    moved_alike(one, two, before)


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    assert level(two_ranks_alike(tmp_path, fading, Data(3))) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 24}, "resolution is 24"),
        ({"growing": GrowingOptions(32)}, r"growing.start_resolution is 32; it must be .* \(16\)"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        narrow(**options)
