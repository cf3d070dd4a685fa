"""What each rank of test_zero.py runs: `LOCAL_RANK=r rank_program.py OUT JOB...`, a job being a JSON object.

A job: ``name``, ``family``, ``strategy``, ``port``, ``until`` (steps), maybe ``accelerator``, ``devices``, ``resume``
(a checkpoint), ``precision``, ``sync_batchnorm``, ``bad_steps`` (infinite images on the last rank) and options of the
family. Writes OUT/<name>.pt: a checkpoint with each step's losses and, of families that generate, a few images.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.plugins import MixedPrecision

from datamodules.assets.fetching import fetch
from gesso.common.schedules import Schedule
from launch.callbacks.ema import EMA
from launch.checkpoints import layout
from launch.checkpoints.background import BackgroundIO
from launch.strategies import ddp, zero
from lightning_modules.autoencoder.factor_vae import FactorVAE
from lightning_modules.autoencoder.swapping import SwappingAutoencoder
from lightning_modules.autoencoder.tcvae import BetaTCVAE
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.averages import Average
from lightning_modules.core.family import Batch, ImageFamily
from lightning_modules.core.family import Losses as StepLosses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.profiles import HalfLife
from lightning_modules.gan.biggan import BigGAN
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.gan.ganformer import GANformer
from lightning_modules.gan.r3gan import R3GAN
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.gan.stylegan3 import StyleGAN3
from lightning_modules.kinds.perceiving import PerceivingFamily
from lightning_modules.networks.adain import DecoderOptions
from lightning_modules.networks.augment.adaptive import AugmentOptions
from lightning_modules.networks.biggan import BigGANDiscriminatorOptions, BigGANGeneratorOptions
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.experts import ExpertOptions
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.networks.ganformer.attention import AttentionOptions
from lightning_modules.networks.ganformer.mapping import ComponentMappingOptions
from lightning_modules.networks.ganformer.synthesis import ComponentSynthesisOptions
from lightning_modules.networks.latent_discriminator import LatentDiscriminatorOptions
from lightning_modules.networks.mccnet import MCCNetOptions
from lightning_modules.networks.multiscale_discriminator import MultiscaleDiscriminatorOptions
from lightning_modules.networks.munit import MunitOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.r3gan import R3Options
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.networks.stargan import StarGANOptions
from lightning_modules.networks.style_head import StyleHeadOptions
from lightning_modules.networks.stylegan2 import discriminator as critics
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import SynthesisOptions
from lightning_modules.networks.stylegan3 import schedule
from lightning_modules.networks.stytr2 import StyTr2Options
from lightning_modules.networks.swapping.autoencoder import SwappingOptions
from lightning_modules.networks.swapping.cooccurrence import CooccurrenceOptions
from lightning_modules.networks.vae import AutoencoderOptions
from lightning_modules.networks.wct2 import WaveletDecoderOptions
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle
from lightning_modules.style.mccnet import MCCNet
from lightning_modules.style.style_encoder import StyleEncoder
from lightning_modules.style.stytr2 import StyTr2
from lightning_modules.style.wct2 import WCT2
from lightning_modules.translation.cut import CUT
from lightning_modules.translation.cyclegan import CycleGAN
from lightning_modules.translation.munit import MUNIT
from lightning_modules.translation.stargan import StarGANv2
from tests.cycle import Cycle
from tests.lightning_modules.diffusion.families import TRAINED, trained

GLOBAL_BATCH = 8
SMALL: dict[str, Any] = {"resolution": 32, "channels": 1, "latent_dim": 8}


class Rows(L.LightningDataModule):
    """The same global batches for any number of ranks, from any step on."""

    def __init__(self, first: int, until: int, bad_steps: list[int], channels: int = 1) -> None:
        super().__init__()
        self.first, self.until, self.bad_steps, self.channels = first, until, bad_steps, channels

    def train_dataloader(self) -> Any:
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rank, ranks = self.trainer.global_rank, self.trainer.world_size  # type: ignore[union-attr]
        for step in range(self.first, self.until):
            generator = torch.Generator().manual_seed(step)
            images = torch.rand(GLOBAL_BATCH, self.channels, 32, 32, generator=generator) * 2 - 1
            if step in self.bad_steps:
                # On the last rank only; the others must hear of it.
                images[ranks - 1] = torch.inf
            labels = torch.arange(GLOBAL_BATCH) // 2 % 2
            batch = {"image": images, "style": images.flip(0), "image_b": images.flip(0), "label": labels}
            own = {name: rows[rank::ranks] for name, rows in batch.items()}
            yield {**own, "position": (step + 1) * GLOBAL_BATCH}


class Losses(L.Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *rest: Any) -> None:
        self.steps.append(pl_module.pop_mean_losses())


class Taught(VAE):
    """Learns from the average of its own weights as well."""

    def own_averages(self) -> dict[str, Average]:
        return {"teacher": Average(HalfLife(0.02, ramp_up=0.0), ("autoencoder",))}

    def losses(self, batch: Batch) -> StepLosses:
        values = super().losses(batch)
        noise = torch.zeros(len(batch["image"]), self.latent_dim)
        theirs, *_ = self.averaged("teacher", "autoencoder")(batch["image"], noise)
        ours, *_ = self.autoencoder(batch["image"], noise)
        taught = (ours - theirs).square().sum((1, 2, 3)).mean()
        return {**values, "loss": values["loss"] + taught, "taught": taught}


def make(
    family: str, *, synchronised: bool = False, gradient_checkpointing: bool = False, **options: Any
) -> ImageFamily:
    if family in TRAINED:
        return trained(family, gradient_checkpointing=gradient_checkpointing, **options)
    torch.manual_seed(0)
    generator = GeneratorOptions(8, gradient_checkpointing=gradient_checkpointing)
    critic = DiscriminatorOptions(8, normalization="layer", gradient_checkpointing=gradient_checkpointing)
    gan = {**SMALL, **options, "generator": generator, "discriminator": critic}
    if family == "wgan_gp":
        module: ImageFamily = DCGAN(**gan, loss="wgan_gp")
    elif family == "wgan":
        module = DCGAN(**gan, loss="wgan", weight_clip=0.02)
    elif family == "r1":
        module = DCGAN(**gan, loss="vanilla", r1_gamma=1.0, r1_interval=2)
    elif family == "conditional":
        gan["discriminator"] = replace(critic, normalization="batch")
        module = DCGAN(**gan, num_classes=2, loss="vanilla", r1_gamma=1.0, r1_interval=2)
    elif family == "spectral":
        gan["generator"] = replace(generator, attention_resolution=16)
        gan["discriminator"] = replace(critic, normalization="none", spectral_norm=True, attention_resolution=16)
        module = DCGAN(**gan, loss="hinge")
    elif family == "biggan":
        module = biggan(**options)
    elif family == "stylegan2":
        module = stylegan2(**options)
    elif family == "stylegan3":
        module = stylegan3(**options)
    elif family == "ganformer":
        module = ganformer(**options)
    elif family in ("r3gan", "first_order_r3gan"):
        module = r3gan(first_order=family != "r3gan", **options)
    elif family == "together":
        module = Cycle(**options)
    elif family == "stargan":
        small_star = StarGANOptions(4, 8, 1, 4, 5, 8, gradient_checkpointing=gradient_checkpointing)
        module = StarGANv2(resolution=32, channels=1, num_classes=2, network=small_star, lambda_ds=0.5, **options)
    elif family in ("cyclegan", "cut", "fastcut", "munit"):
        module = translating(family, **options)
    elif family == "teacher":
        module = Taught(**SMALL, **options, autoencoder=AutoencoderOptions(8, gradient_checkpointing))
    elif family == "adain":
        module = with_pictures(AdaIN(resolution=32, **options))
    elif family in JUDGED:
        module = judged(family, **options)
    elif family == "adain_experts":
        experts = ExpertOptions(3, 2, width=8)
        routed = DecoderOptions(32, gradient_checkpointing, experts)
        module = with_pictures(AdaIN(resolution=32, decoder=routed, balance_weight=1.0, **options))
    elif family == "stytr2":
        # Dropout is each rank's own.
        small = StyTr2Options(16, 2, 2, 1, dropout=0.0, window=2, gradient_checkpointing=gradient_checkpointing)
        module = with_pictures(StyTr2(resolution=32, network=small, optimizer=OptimizerOptions(), **options))
    elif family == "mccnet":
        correlation = MCCNetOptions(gradient_checkpointing=gradient_checkpointing)
        module = with_pictures(MCCNet(resolution=32, network=correlation, optimizer=OptimizerOptions(), **options))
    elif family == "wct2":
        decoder = WaveletDecoderOptions(gradient_checkpointing=gradient_checkpointing)
        module = with_pictures(WCT2(resolution=32, decoder=decoder, **options))
    elif family == "fast_style":
        styles = {"styles": ["one.png", "two.png"], "style_size": 32, "network": FastStyleOptions(kind="light")}
        module = with_pictures(FastStyle(resolution=32, **styles, **options))
    elif family in ("tcvae", "factor_vae"):
        options |= {**SMALL, "autoencoder": AutoencoderOptions(8, gradient_checkpointing)}
        latent_critic = LatentDiscriminatorOptions(16, 2)
        module = BetaTCVAE(**options) if family == "tcvae" else FactorVAE(discriminator=latent_critic, **options)
    elif family == "style_encoder":
        module = with_pictures(
            StyleEncoder(resolution=32, crop_size=16, optimizer=OptimizerOptions(lr=1e-2, eps=1e-2), **options)
        )
    elif family == "swapping":
        module = swapping(**options)
    else:
        module = VAE(**SMALL, **options, autoencoder=AutoencoderOptions(8, gradient_checkpointing))
    if family == "scheduled":
        module.optimizer = OptimizerOptions("adamw", lr=2e-3, weight_decay=0.01, warmup_kimg=0.016, schedule="cosine")
        module.total_kimg = 0.1
    if family == "muon":
        module.optimizer = OptimizerOptions("muon", lr=2e-3, weight_decay=0.01)
    # Batch norm's statistics are each rank's own, and would differ between one rank and two.
    for part in list(module.modules()) if not synchronised else ():
        for name, child in part.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(part, name, torch.nn.GroupNorm(1, child.num_features))
    return module


#: Families with all of their learned style losses.
JUDGED = ("adain_judged", "fast_style_judged", "cut_judged")


def judged(family: str, **options: Any) -> ImageFamily:
    """Their optimizers do not blow rounding errors up."""
    slow = OptimizerOptions(lr=1e-3, eps=1e-2)
    options |= {"style_encoder": "RUN", "style_head": StyleHeadOptions(8, 4)}
    options |= {"style_distance_weight": 5.0, "style_classifier_weight": 2.0}
    if family == "cut_judged":
        module = CUT(
            resolution=32,
            generator=ResnetGeneratorOptions(4, 1, antialias=True),
            discriminator=PatchDiscriminatorOptions(4, 2, "instance", antialias=True),
            generator_optimizer=slow,
            discriminator_optimizer=slow,
            **options,
        )
        # Pictures of its first weights are nearly flat: their statistics would enlarge rounding errors.
        for parameter in module.generator.parameters():
            parameter.data.mul_(20)
        return with_pictures(module)
    options |= {"style_adversarial_weight": 3.0, "style_discriminator_optimizer": slow, "optimizer": slow}
    options["style_discriminator"] = PatchDiscriminatorOptions(4, 2, "none")
    if family == "adain_judged":
        return with_pictures(AdaIN(resolution=32, decoder=DecoderOptions(32), **options))
    styles = {"styles": ["one.png", "two.png"], "style_size": 32, "network": FastStyleOptions(kind="light")}
    return with_pictures(FastStyle(resolution=32, **styles, **options))


def translating(family: str, **options: Any) -> ImageFamily:
    if family == "munit":
        small = MunitOptions(4, blocks=1, style_dim=3, hidden=8)
        critic = MultiscaleDiscriminatorOptions(4, 2)
        return MUNIT(resolution=32, channels=1, autoencoder=small, discriminator=critic, **options)
    if family == "fastcut":
        options |= {"lambda_nce": 10.0, "nce_identity": False, "flip_equivariance": True}
    cut = family != "cyclegan"
    options |= {
        "resolution": 32,
        "channels": 1,
        "generator": ResnetGeneratorOptions(4, 1, antialias=cut),
        "discriminator": PatchDiscriminatorOptions(4, 2, "instance", antialias=cut),
    }
    return CUT(patches=32, projection_width=8, **options) if cut else CycleGAN(pool_size=10, **options)


def biggan(**options: Any) -> ImageFamily:
    """A small one of classes, with a hierarchical z; rounding errors of biases that a norm takes away stay small."""
    optimizer = OptimizerOptions(lr=5e-3, beta1=0.0, eps=1.0)
    return BigGAN(
        **SMALL,
        **options,
        num_classes=2,
        n_critic=1,
        generator=BigGANGeneratorOptions(2, shared_dim=4, attention_resolution=16),
        discriminator=BigGANDiscriminatorOptions(2, attention_resolution=16),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
    )


def stylegan2(**options: Any) -> ImageFamily:
    """A small one with everything on; its optimizers do not blow rounding errors up."""
    widths, optimizer = {"channel_base": 128, "channel_max": 8}, OptimizerOptions(lr=2e-2, beta1=0.0, eps=1e-2)
    return StyleGAN2(
        **SMALL,
        **options,
        num_classes=2,
        mapping=MappingOptions(layers=2, w_dim=8),
        synthesis=SynthesisOptions(**widths),
        discriminator=critics.DiscriminatorOptions(**widths, mapping_layers=2),
        r1_gamma=1.0,
        r1_interval=2,
        path_length_interval=2,
        augmentation=AugmentOptions("bgc", target=0.4, interval=2, kimg=0.05, initial_p=0.5),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
    )


def stylegan3(**options: Any) -> ImageFamily:
    """A small one whose optimizers do not blow rounding errors up; StyleGAN2 has the rest."""
    return StyleGAN3(
        **SMALL,
        **options,
        mapping=MappingOptions(layers=2, w_dim=8),
        synthesis=schedule.SynthesisOptions(layers=4, channel_base=128, channel_max=8, margin=2),
        discriminator=critics.DiscriminatorOptions(channel_base=128, channel_max=8, mapping_layers=2),
        r1_gamma=1.0,
        r1_interval=2,
        generator_optimizer=OptimizerOptions(lr=0.1, beta1=0.0, eps=0.1),
        discriminator_optimizer=OptimizerOptions(lr=2e-2, beta1=0.0, eps=1e-2),
    )


def ganformer(**options: Any) -> ImageFamily:
    """A small one without dropout, which is each rank's own; StyleGAN2 has the rest."""
    widths: dict[str, Any] = {"channel_base": 128, "channel_max": 8}
    optimizer = OptimizerOptions(lr=2e-2, beta1=0.0, eps=1e-2)
    attention = AttentionOptions("simplex", dropout=0.0)
    return GANformer(
        **{**SMALL, "latent_dim": 24},
        **options,
        mapping=ComponentMappingOptions(layers=2, w_dim=8, components=2, dropout=0.0),
        synthesis=ComponentSynthesisOptions(**widths, attention=attention),
        discriminator=critics.DiscriminatorOptions(**widths),
        r1_gamma=1.0,
        r1_interval=2,
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
    )


def r3gan(*, first_order: bool, **options: Any) -> ImageFamily:
    """A small one with every schedule under way."""
    gamma, kimg = Schedule(1.0, 0.1, over_kimg=0.06), {"decay_kimg": 0.06, "final_lr": 5e-3}
    optimizer = OptimizerOptions(lr=2e-2, beta1=0.0, beta2=0.9, eps=1e-2, schedule="cosine", final_beta2=0.99, **kimg)
    network = R3Options((16, 16, 8, 8), blocks=1, group_width=8)
    names = ("first_order_gamma", "first_order_fake_gamma") if first_order else ("r1_gamma", "r2_gamma")
    gammas: dict[str, Any] = {"r1_gamma": 0.0, "r2_gamma": 0.0, **dict.fromkeys(names, gamma)}
    return R3GAN(
        **SMALL,
        **options,
        **gammas,
        num_classes=2,
        generator=network,
        discriminator=network,
        augmentation=AugmentOptions("bgc_cutout", schedule=Schedule(0.5, 1.0, over_kimg=0.06)),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
    )


def swapping(**options: Any) -> ImageFamily:
    """A small one whose optimizers do not blow rounding errors up."""
    optimizer = OptimizerOptions(lr=2e-2, beta1=0.0, eps=1e-2)
    return SwappingAutoencoder(
        resolution=32,
        channels=1,
        **options,
        patches=2,
        r1_interval=2,
        autoencoder=SwappingOptions(
            structure_channels=4, texture_dim=16, halvings=2, encoder_width=4, decoder_width=4, decoder_max=8
        ),
        discriminator=critics.DiscriminatorOptions(channel_base=128, channel_max=8, minibatch_features=0),
        cooccurrence=CooccurrenceOptions(patch_size=8, width=16, width_max=8, hidden=16),
        autoencoder_optimizer=optimizer,
        discriminator_optimizer=optimizer,
    )


def with_pictures(family: PerceivingFamily) -> ImageFamily:
    """A style family with its encoder, and with style pictures if it wants any."""
    family.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    for option in family.pictures():
        family.take_pictures(option, [torch.rand(1, 3, 32, 32) * 2 - 1 for _ in range(2)])
    return family


def run(job: dict[str, Any], out: Path) -> None:
    known = ("micro_batches", "gradient_clip_norm", "gradient_checkpointing", "burst", "compile")
    options = {key: job[key] for key in known if key in job}
    synchronised = job.get("sync_batchnorm", False)
    module = make(job["family"], synchronised=synchronised, **options)
    resume = job.get("resume")
    first = layout.read(Path(resume))["gesso"]["steps_done"] if resume else 0
    losses, ema = Losses(), EMA(half_life_kimg=[0.02, 0.1], widths=[0.1])
    precision = job.get("precision", "32-true")
    # Lightning would take bf16-mixed on a CPU unless the plugin itself is given.
    accelerator = job.get("accelerator", "cpu")
    fp16 = precision == "16-mixed" and accelerator == "cpu"
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=job.get("devices", 2),
        strategy=job["strategy"],
        precision=None if fp16 else precision,
        plugins=[MixedPrecision("16-mixed", "cpu")] if fp16 else None,
        sync_batchnorm=synchronised,
        # The checkpoint was saved at its epoch's end.
        max_epochs=2 if resume else 1,
        callbacks=[losses, ema, Keep(out / job["name"])],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=out,
    )
    rows = Rows(first, job["until"], job.get("bad_steps", []), module.batch_spec().channels or 3)
    trainer.fit(module, rows, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        state = layout.read(out / job["name"])
        state["losses"] = losses.steps
        state["images"] = torch.load(out / f"{job['name']}.images.pt")
        torch.save(state, out / f"{job['name']}.pt")
    assert not dist.is_initialized()


class Keep(L.Callback):
    """Saves while the engines still live; and looks at evaluation's weights on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.io = BackgroundIO()

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        trainer.strategy.checkpoint_io = self.io

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        images = None
        with pl_module.evaluating():
            # Ranks may generate as often as they like by themselves: 1 batch here, 2 there.
            for _ in range(1 + trainer.global_rank if "generate" in pl_module.abilities() else 0):
                images = pl_module.generate(torch.arange(4), seed=0)
        trainer.save_checkpoint(self.path)
        self.io.wait()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            torch.save(images, f"{self.path}.images.pt")


def main() -> None:
    # A hang tells where it is.
    faulthandler.dump_traceback_later(540, exit=True)
    out = Path(sys.argv[1])
    ddp.register()
    zero.register()
    for text in sys.argv[2:]:
        job = json.loads(text)
        if int(os.environ["LOCAL_RANK"]) < job.get("devices", 2):
            os.environ["MASTER_PORT"] = str(job["port"])
            run(job, out)


if __name__ == "__main__":
    main()
