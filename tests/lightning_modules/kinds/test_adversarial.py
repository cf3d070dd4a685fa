"""What all GANs share: which penalties are asked for, what they add, and what the generator's loss sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from gesso.common.schedules import Schedule
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.augment.adaptive import AugmentOptions
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions

SMALL: dict[str, Any] = {
    "resolution": 32,
    "channels": 1,
    "latent_dim": 8,
    "generator": GeneratorOptions(8),
    "discriminator": DiscriminatorOptions(8, normalization="none"),
}


class Fixed(DCGAN):
    """Draws the same noise for every call, without a trainer."""

    def rand(self, count: int, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))

    def randn(self, count: int, *shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def batch() -> dict[str, Tensor]:
    return {"image": torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1}


@pytest.mark.parametrize(
    ("options", "names", "twice"),
    [
        ({}, [], False),
        ({"loss": "wgan_gp"}, ["gradient_penalty"], True),
        ({"r1_gamma": 1.0, "r2_gamma": 1.0, "r1_interval": 2}, ["r1", "r2"], True),
        ({"first_order_gamma": 1.0}, ["first_order"], False),
        ({"first_order_gamma": 1.0, "first_order_fake_gamma": 2.0}, ["first_order", "first_order_fake"], False),
        ({"r1_gamma": Schedule(2.0, 0.0, over_kimg=1.0), "r2_gamma": Schedule(0.0, 0.0)}, ["r1"], True),
    ],
)
def test_penalties_are_those_asked_for(options: dict[str, Any], names: list[str], twice: bool) -> None:
    module = Fixed(**SMALL, **options)
    assert module.requires_double_backward() == (("discriminator",) if twice else ())
    plain = Fixed(**SMALL, loss=options.get("loss", "non_saturating"), lambda_gp=0.0)
    plain.load_state_dict(module.state_dict())
    losses = module.discriminator_losses(batch())
    assert [name for name in losses if name not in ("loss", "real_logits", "fake_logits", "r_t")] == names
    added = sum(module.weight_of(r) * losses[r.name] for r in module.regularizers)
    bare = plain.discriminator_losses(batch())["loss"]
    torch.testing.assert_close(losses["loss"], bare + added)
    if options.get("r1_interval"):
        module.steps_done = 1
        assert "r1" not in module.discriminator_losses(batch())


def test_a_penalty_fades_by_its_schedule() -> None:
    module = Fixed(**SMALL, r1_gamma=Schedule(2.0, 0.5, over_kimg=1.0), r1_interval=2)
    # So that the penalty is of the size of the loss.
    module.discriminator.to_logit.weight.data.mul_(30)
    (r1,) = module.regularizers
    weights = []
    for module.images_seen in (0, 500, 1000, 5000):
        losses = module.discriminator_losses(batch())
        bare = Fixed(**SMALL)
        bare.load_state_dict(module.state_dict())
        weights.append(((losses["loss"] - bare.discriminator_losses(batch())["loss"]) / losses["r1"]).item())
        assert weights[-1] == pytest.approx(module.weight_of(r1), rel=1e-3)
    # Twice gamma / 2, halfway down the cosine in the middle.
    assert weights == pytest.approx([2.0, 1.25, 0.5, 0.5], rel=1e-3)
    with pytest.raises(ValueError, match=r"r1_gamma\.end is -1; the weight of a loss must be 0 or more"):
        Fixed(**SMALL, r1_gamma=Schedule(1, -1))


def test_relativistic_losses_pair_generated_and_real_images() -> None:
    module = Fixed(**SMALL, loss="rpgan")
    images = batch()["image"]
    real, fake = module.discriminator(images), module.discriminator(module.fakes(batch()))
    torch.testing.assert_close(module.generator_losses(batch())["loss"], softplus(real - fake).mean())
    torch.testing.assert_close(module.discriminator_losses(batch())["loss"], softplus(fake - real).mean())


def test_the_discriminator_of_any_gan_sees_augmented_images() -> None:
    module = Fixed(**SMALL, augmentation=AugmentOptions("cutout", initial_p=1.0, target=0.6, interval=1, kimg=0.01))
    plain = Fixed(**SMALL)
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("augmentation")})
    losses, without = module.discriminator_losses(batch()), plain.discriminator_losses(batch())
    assert losses["augmentation_p"] == 1
    assert losses["real_logits"] != without["real_logits"]
    assert losses["fake_logits"] != without["fake_logits"]
    assert module.generator_losses(batch())["loss"] != plain.generator_losses(batch())["loss"]
    # What is measured on held-out images is of these as they are.
    held_out = module.held_out_losses(batch())["real_logits"]
    torch.testing.assert_close(held_out, plain.held_out_losses(batch())["real_logits"])
    assert module.augmentation is not None
    module.augmentation.end_step(0)
    assert module.augmentation.p.item() in (pytest.approx(0.6), pytest.approx(1.4))
