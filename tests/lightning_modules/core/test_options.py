"""Options as nested data: there and back, by their older names, and what differs."""

from __future__ import annotations

from typing import Any

import pytest

from gesso.common.schedules import Schedule
from lightning_modules.catalogue import FAMILIES, family
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import changes, constructor_options, paths, plain, replaced, with_new_names
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.style.fast_style import FastStyle

#: The options that families had before networks had options of their own, with values that no default is.
OLD: dict[str, dict[str, Any]] = {
    "AdaIN": {"lr": 3e-4, "gradient_checkpointing": True, "style_weight": 5.0},
    "DCGAN": {
        "resolution": 32,
        "width": 8,
        "spectral_norm": True,
        "generator_spectral_norm": True,
        "attention_resolution": 16,
        "normalization": "layer",
        "generator_lr": 1e-3,
        "discriminator_lr": 2e-3,
        "beta1": 0.25,
        "beta2": 0.9,
        "gradient_checkpointing": True,
        "r1_gamma": 1.0,
    },
    "FastStyle": {"network": "light", "lr": 3e-4, "gradient_checkpointing": True},
    "VAE": {"width": 8, "lr": 3e-4, "gradient_checkpointing": True, "beta": 2.0},
}
#: A diffusion model whose network is made in no time.
DENOISER: dict[str, object] = {
    "resolution": 16,
    "network": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": []},
}
TRANSLATOR: dict[str, object] = {
    "resolution": 32,
    "generator": {"width": 4, "blocks": 1},
    "discriminator": {"width": 4, "layers": 1},
}
#: Small ones of the families whose options never had other names.
NEW: dict[str, dict[str, object]] = {
    "GANformer": {
        "resolution": 16,
        "latent_dim": 24,
        "mapping": {"layers": 1, "w_dim": 8, "components": 2},
        "synthesis": {"channel_max": 8, "attention": {"kind": "simplex", "heads": 2}},
        "discriminator": {"channel_max": 8},
    },
    "StyleGAN1": {
        "resolution": 16,
        "mapping": {"layers": 1, "w_dim": 8},
        "synthesis": {"channel_max": 8},
        "discriminator": {"channel_max": 8},
        "growing": {"start_resolution": 4, "training_kimg": 2.0},
    },
    "StyleGAN2": {
        "resolution": 16,
        "mapping": {"layers": 1, "w_dim": 8},
        "synthesis": {"channel_max": 8},
        "discriminator": {"channel_max": 8},
    },
    "StyleGAN3": {
        "resolution": 16,
        "mapping": {"layers": 1, "w_dim": 8},
        "synthesis": {"layers": 4, "channel_max": 8, "rotation_equivariant": True},
        "discriminator": {"channel_max": 8},
    },
    "R3GAN": {
        "resolution": 8,
        "generator": {"widths": [16, 8], "group_width": 8},
        "discriminator": {"widths": [16, 8], "group_width": 8},
        "r2_gamma": 0.5,
        "r1_gamma": {"start": 3.0, "end": 1.0},
        "augmentation": {"transforms": "bgc", "schedule": {"start": 0.0, "end": 0.5, "over_kimg": 5.0}},
    },
    "BetaTCVAE": {"resolution": 32, "autoencoder": {"width": 8}},
    "FactorVAE": {"resolution": 32, "autoencoder": {"width": 8}},
    "SwappingAutoencoder": {
        "resolution": 32,
        "autoencoder": {"texture_dim": 16, "halvings": 2, "encoder_width": 4, "decoder_width": 4, "decoder_max": 8},
        "discriminator": {"channel_max": 8, "minibatch_features": 0},
        "cooccurrence": {"patch_size": 8, "width": 16, "width_max": 8, "hidden": 16},
    },
    "BigGAN": {
        "resolution": 32,
        "latent_dim": 8,
        "generator": {"width": 2, "shared_dim": 4},
        "discriminator": {"width": 2},
        "truncation_psi": 0.5,
    },
    "ProjectedGAN": {
        "resolution": 16,
        "feature_size": 64,
        "generator": {"width": 8, "lite": True},
        "mixed_width": 8,
        "diff_augment": {"cutout": 0.25},
    },
    "StyleSwin": {
        "resolution": 16,
        "mapping": {"layers": 1, "w_dim": 8},
        "synthesis": {"channel_max": 8, "window": 4},
        "discriminator": {"channel_max": 8, "spectral_norm": False},
        "bcr_real_weight": 10.0,
    },
    **dict.fromkeys(("DDPM", "ECT", "EDM", "MeanFlow", "ProgressiveDistillation"), DENOISER),
    "Flow": {**DENOISER, "latents": {"autoencoder": "runs/kl"}},
    **dict.fromkeys(("CUT", "CycleGAN"), TRANSLATOR),
    "StyTr2": {"network": {"width": 16, "heads": 2, "encoder_layers": 1, "window": 2}},
    "MUNIT": {
        "resolution": 32,
        "autoencoder": {"width": 4, "blocks": 1},
        "discriminator": {"width": 4, "layers": 2},
    },
    "StarGANv2": {"resolution": 16, "network": {"width": 4, "halvings": 1, "hidden": 8}},
    "MCCNet": {"network": {"floor": 0.01, "gradient_checkpointing": True}},
    "CAPVST": {"resolution": 32, "network": {"width": 4, "blocks": 1, "mode": "art"}},
    "StyleEncoder": {"head": {"width": 8, "code_dim": 4}, "color_jitter": 0.1},
    "WCT2": {"resolution": 32, "decoder": {"unpooling": "sum"}},
    "AutoencoderKL": {
        "resolution": 16,
        "autoencoder": {"width": 32, "multipliers": [1, 1], "blocks": 1},
        "discriminator": {"width": 8, "layers": 1},
    },
}


@pytest.mark.parametrize("name", FAMILIES.own)
def test_a_family_comes_back_from_its_plain_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = family(name).from_options((OLD | NEW)[name])
    said = capsys.readouterr().err
    assert len(said.splitlines()) == (name in OLD)
    assert said.startswith("options have other names: " if name in OLD else "")
    options = constructor_options(module.hparams)
    again = family(name).from_options(options)
    assert not capsys.readouterr().err
    assert constructor_options(again.hparams) == options
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in module.state_dict().items()}
    for network, optimized in module.optimization().items():
        assert optimized == again.optimization()[network]


def test_a_number_may_be_given_a_schedule() -> None:
    module = DCGAN.from_options({"resolution": 32, "r1_gamma": {"start": 2.0, "end": 1.0}})
    assert module.hparams["r1_gamma"] == Schedule(2.0, 1.0)
    (r1,) = module.regularizers
    assert r1.factor == Schedule(2.0, 1.0)
    fading = {"augmentation": {"transforms": "blit", "schedule": {"start": 0.0, "end": 0.5}}}
    assert DCGAN.from_options({"resolution": 32, **fading}).hparams["augmentation"].schedule == Schedule(0.0, 0.5)
    with pytest.raises(ValueError, match="r1_gamma has no option stop; it has start, end, over_kimg"):
        DCGAN.from_options({"resolution": 32, "r1_gamma": {"start": 2.0, "stop": 1.0}})


def test_older_names_mean_what_they_meant(capsys: pytest.CaptureFixture[str]) -> None:
    module = DCGAN.from_options(OLD["DCGAN"])
    assert module.hparams["generator"] == GeneratorOptions(8, 16, True, True)
    assert module.hparams["discriminator"] == DiscriminatorOptions(8, 16, True, "layer", True)
    assert module.generator_optimizer == OptimizerOptions(lr=1e-3, beta1=0.25, beta2=0.9)
    assert module.discriminator_optimizer == OptimizerOptions(lr=2e-3, beta1=0.25, beta2=0.9)
    assert "width is now generator.width and discriminator.width" in capsys.readouterr().err
    assert FastStyle.from_options({"network": "light"}).hparams["network"] == FastStyleOptions("light")


def test_a_paper_default_survives_beside_an_older_name() -> None:
    # Only what is named changes: Adam's beta1 stays DCGAN's 0.5.
    module = DCGAN.from_options({"resolution": 32, "generator_lr": 1e-3})
    assert module.generator_optimizer == OptimizerOptions(lr=1e-3, beta1=0.5)


def test_a_new_name_wins_over_an_older_one() -> None:
    found, old = with_new_names({"width": 8, "generator": {"width": 16}}, DCGAN.renamed_options)
    assert (found, old) == ({"generator": {"width": 16}, "discriminator": {"width": 8}}, ["width"])


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match="generator has no option widht; it has width, attention_resolution"):
        DCGAN.from_options({"generator": {"widht": 8}})
    assert ImageFamily.renamed_options == {}


def test_options_are_found_replaced_and_compared_at_any_depth() -> None:
    options = plain({"a": GeneratorOptions(8), "b": (1, 2)})
    assert options["b"] == [1, 2]
    assert list(paths(options, "width")) == [("a.width", 8)]
    wider = replaced(options, "width", 16)
    assert list(paths(wider, "width")) == [("a.width", 16)]
    assert changes(options, wider) == ["a.width: 8 -> 16"]
