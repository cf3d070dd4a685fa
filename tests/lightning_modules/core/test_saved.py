"""What a checkpoint must have in common with the family that goes on from it."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass, replace
from typing import Any

import pytest

from gesso.common.schedules import Schedule
from lightning_modules.catalogue import FAMILIES, family
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.diffusion.consistency import ECT
from lightning_modules.diffusion.ddpm import DDPM
from lightning_modules.diffusion.edm import EDM
from lightning_modules.diffusion.progressive import ProgressiveDistillation
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.kinds.latents import LatentOptions
from lightning_modules.losses.temporal import TemporalOptions
from lightning_modules.networks.augment.adaptive import AugmentOptions
from lightning_modules.networks.augment.differentiable import DiffAugmentOptions
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.networks.stylegan1.growing import GrowingOptions
from lightning_modules.networks.stylegan2.discriminator import DiscriminatorOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import SynthesisOptions
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.translation.cut import CUT

TINY = DenoiserOptions(width=8, multipliers=(1, 2), blocks=1, attention_resolutions=(), dropout=0.0)
NARROW: dict[str, Any] = {
    "synthesis": SynthesisOptions(channel_base=64, channel_max=8),
    "discriminator": DiscriminatorOptions(channel_base=64, channel_max=8),
}


def built(family: type[ImageFamily], **options: Any) -> ImageFamily:
    narrow = NARROW if family is StyleGAN2 else {"network": TINY}
    return family(**{"resolution": 16, "channels": 1, **narrow, **options})


def checkpoint_of(module: ImageFamily) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    ("family", "options", "others", "said"),
    [
        (EDM, {}, {"sigma_data": 0.3}, "sigma_data: 0.5 -> 0.3"),
        (ECT, {}, {"noise_scale": 250.0}, "noise_scale: 1.0 -> 250.0"),
        (ProgressiveDistillation, {"teacher_steps": 8}, {"teacher_steps": 16}, "teacher_steps: 8 -> 16"),
        (ProgressiveDistillation, {}, {"sigma_max": 20.0}, "sigma_max: 80.0 -> 20.0"),
        (DDPM, {}, {"prediction": "v"}, "prediction: epsilon -> v"),
        (DDPM, {}, {"schedule": "cosine", "timesteps": 500}, "timesteps: 1000 -> 500, schedule: linear -> cosine"),
        (StyleGAN2, {}, {"mapping": MappingOptions(lr_multiplier=1.0)}, "mapping.lr_multiplier: 0.01 -> 1.0"),
    ],
)
def test_weights_keep_their_meaning(
    family: type[ImageFamily], options: dict[str, Any], others: dict[str, Any], said: str
) -> None:
    """A training does not go on with options that show in no shape, and would make other pictures of the weights."""
    checkpoint = checkpoint_of(built(family, **options))
    after = built(family, **{**options, **others})
    with pytest.raises(ValueError, match="weights mean something else with other options") as error:
        after.on_load_checkpoint({**checkpoint})
    assert f"({said})" in str(error.value)
    # What an older checkpoint does not tell is no difference.
    older = {name: value for name, value in checkpoint["hyper_parameters"].items() if name not in others}
    after.on_load_checkpoint({**checkpoint, "hyper_parameters": older})


@pytest.mark.parametrize("name", FAMILIES.own)
def test_no_network_changes_under_its_weights(name: str) -> None:
    """All options of a network are fixed, those of networks that judge as well: few show in a weight's shape."""
    kind = family(name)
    training = (
        OptimizerOptions,
        SamplingOptions,
        AugmentOptions,
        DiffAugmentOptions,
        LatentOptions,
        TemporalOptions,
        GrowingOptions,
        Schedule,
    )
    groups = {
        parameter.name: type(parameter.default)
        for parent in kind.__mro__
        if "__init__" in vars(parent)
        for parameter in inspect.signature(vars(parent)["__init__"]).parameters.values()
        if is_dataclass(parameter.default)
    }
    networks = {option for option, group in groups.items() if not issubclass(group, training)}
    assert networks
    assert networks <= set(kind.fixed_options)


def test_a_discriminator_keeps_its_meaning() -> None:
    options: dict[str, Any] = {"resolution": 32, "channels": 1, "generator": ResnetGeneratorOptions(4, 1)}
    critic = PatchDiscriminatorOptions(4, 2, "instance", antialias=True)
    checkpoint = checkpoint_of(CUT(**options, discriminator=critic))
    for change in ({"antialias": False}, {"normalization": "none"}):
        after = CUT(**options, discriminator=replace(critic, **change))
        with pytest.raises(
            ValueError, match=rf"something else with other options \(discriminator.{next(iter(change))}:"
        ):
            after.on_load_checkpoint({**checkpoint})


def test_what_belongs_to_the_training_may_change() -> None:
    free = {"label_dropout": 0.3, "P_mean": 0.0, "network": replace(TINY, dropout=0.5, gradient_checkpointing=True)}
    built(EDM, **free).on_load_checkpoint(checkpoint_of(built(EDM)))
    # Fewer images a rank want smaller groups.
    smaller = {"discriminator": replace(NARROW["discriminator"], minibatch_group=2)}
    built(StyleGAN2, **smaller).on_load_checkpoint(checkpoint_of(built(StyleGAN2)))
