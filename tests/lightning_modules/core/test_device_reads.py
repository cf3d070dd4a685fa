"""No step waits for the device: nothing in it reads a value, or needs one to know a shape."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from datamodules.assets.fetching import fetch
from gesso.common.schedules import Schedule
from launch.callbacks.ema import EMA
from launch.strategies.ddp import MultiNetworkDDP
from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.family import ImageFamily
from lightning_modules.gan.biggan import BigGAN
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.gan.ganformer import GANformer
from lightning_modules.gan.r3gan import R3GAN
from lightning_modules.gan.stylegan1 import StyleGAN1
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.gan.stylegan3 import StyleGAN3
from lightning_modules.gan.styleswin import StyleSwin
from lightning_modules.networks.adain import DecoderOptions
from lightning_modules.networks.augment.adaptive import AugmentOptions
from lightning_modules.networks.augment.differentiable import DiffAugmentOptions
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions
from lightning_modules.networks.biggan import BigGANDiscriminatorOptions, BigGANGeneratorOptions
from lightning_modules.networks.cap_vst import ReversibleOptions
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.experts import ExpertOptions
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.networks.ganformer.attention import AttentionOptions
from lightning_modules.networks.ganformer.mapping import ComponentMappingOptions
from lightning_modules.networks.ganformer.synthesis import ComponentSynthesisOptions
from lightning_modules.networks.multiscale_discriminator import MultiscaleDiscriminatorOptions
from lightning_modules.networks.munit import MunitOptions
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.r3gan import R3Options
from lightning_modules.networks.resnet_generator import ResnetGeneratorOptions
from lightning_modules.networks.stargan import StarGANOptions
from lightning_modules.networks.stylegan1 import discriminator as critics_one
from lightning_modules.networks.stylegan1 import synthesis as style_one
from lightning_modules.networks.stylegan1.growing import GrowingOptions
from lightning_modules.networks.stylegan2 import discriminator as critics
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import SynthesisOptions
from lightning_modules.networks.stylegan3 import schedule
from lightning_modules.networks.styleswin.discriminator import WaveletOptions
from lightning_modules.networks.styleswin.generator import SwinOptions
from lightning_modules.networks.stytr2 import StyTr2Options
from lightning_modules.networks.vae import AutoencoderOptions
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.cap_vst import CAPVST
from lightning_modules.style.fast_style import FastStyle
from lightning_modules.style.mccnet import MCCNet
from lightning_modules.style.stytr2 import StyTr2
from lightning_modules.style.wct2 import WCT2
from lightning_modules.translation.cut import CUT
from lightning_modules.translation.cyclegan import CycleGAN
from lightning_modules.translation.munit import MUNIT
from lightning_modules.translation.stargan import StarGANv2
from tests.lightning_modules.diffusion.families import TRAINED, trained
from tests.pictures import paintings, photographs
from tests.trainers import bare_trainer

#: Operators whose result, or its shape, the host must know.
READING = (
    "aten._local_scalar_dense",
    "aten.item",
    "aten.is_nonzero",
    "aten.equal",
    "aten.nonzero",
    "aten.masked_select",
    "aten.unique",
    "aten._unique",
    "aten.bincount",
    "aten.repeat_interleave.Tensor",
)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")


class NoReading(TorchDispatchMode):
    """Fails where an operator would wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if str(func).startswith(READING):
            raise AssertionError(f"{func} waits for the device")
        if str(func).startswith(("aten.index.", "aten.index_put")):
            masks = [part for part in args[1] if part is not None and part.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} with a mask: the shape of its result waits for the device"
        return func(*args, **(kwargs or {}))


class Watch(L.Callback):
    """Watches every step but the first one, in which lists and constants are made."""

    def __init__(self) -> None:
        self.steps = 0
        self._mode = NoReading()

    def on_train_batch_start(self, *_: object) -> None:
        self.steps += 1
        if self.steps > 1:
            self._mode.__enter__()

    def on_train_batch_end(self, *_: object) -> None:
        if self.steps > 1:
            self._mode.__exit__(None, None, None)

    def on_exception(self, *_: object) -> None:
        if self.steps > 1:
            self._mode.__exit__(None, None, None)


def gan(**options: Any) -> Callable[[], ImageFamily]:
    normalization = options.pop("normalization", "batch")
    spectral_norm = options.pop("spectral_norm", False)
    critic = DiscriminatorOptions(8, normalization=normalization, spectral_norm=spectral_norm)
    return lambda: DCGAN(resolution=32, latent_dim=8, generator=GeneratorOptions(8), discriminator=critic, **options)


def stylegan2() -> ImageFamily:
    mapping, widths = MappingOptions(layers=2, w_dim=8), {"channel_base": 128, "channel_max": 8}
    return StyleGAN2(
        resolution=32,
        latent_dim=8,
        num_classes=3,
        mapping=mapping,
        synthesis=SynthesisOptions(**widths),
        discriminator=critics.DiscriminatorOptions(**widths, mapping_layers=2),
        r1_interval=2,
        path_length_interval=2,
        augmentation=AugmentOptions("bgcfnc", interval=2),
    )


def stylegan3() -> ImageFamily:
    return StyleGAN3(
        resolution=32,
        latent_dim=8,
        mapping=MappingOptions(layers=2, w_dim=8),
        synthesis=schedule.SynthesisOptions(layers=4, channel_base=128, channel_max=8, margin=2),
        discriminator=critics.DiscriminatorOptions(channel_base=128, channel_max=8, mapping_layers=2),
        r1_interval=2,
        blur_sigma=2.0,
    )


def r3gan() -> ImageFamily:
    options = R3Options((16, 16, 8, 8), blocks=1, group_width=8)
    augmentation = AugmentOptions("bgc_cutout", schedule=Schedule(0.0, 0.5))
    module = R3GAN(latent_dim=8, num_classes=3, generator=options, discriminator=options, augmentation=augmentation)
    module.total_kimg = 0.02
    return module


def biggan() -> ImageFamily:
    return BigGAN(
        resolution=32,
        latent_dim=8,
        num_classes=3,
        generator=BigGANGeneratorOptions(2, shared_dim=4, attention_resolution=16),
        discriminator=BigGANDiscriminatorOptions(2, attention_resolution=16),
    )


def style(family: Callable[[], ImageFamily]) -> Callable[[], ImageFamily]:
    def make() -> ImageFamily:
        module = family()
        module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
        for option in module.pictures():
            module.take_pictures(option, list(paintings(32).split(1)))
        return module

    return make


def fast_style() -> ImageFamily:
    options: dict[str, Any] = {"resolution": 32, "style_size": 32, "network": FastStyleOptions(kind="light")}
    return FastStyle(styles=["one.png", "two.png"], temporal_weight=1.0, **options)


def autoencoder_kl() -> ImageFamily:
    options: dict[str, Any] = {"perceptual_weight": 0.0, "discriminator_start_kimg": 0.004}
    small = KLAutoencoderOptions(32, (1, 1), 1)
    return AutoencoderKL(resolution=32, autoencoder=small, discriminator=PatchDiscriminatorOptions(8, 2), **options)


def cyclegan() -> ImageFamily:
    # The pool is full after a step and a half.
    small = ResnetGeneratorOptions(4, 1)
    critic = PatchDiscriminatorOptions(4, 2, "instance")
    return CycleGAN(resolution=32, pool_size=6, generator=small, discriminator=critic)


def cut() -> ImageFamily:
    small = ResnetGeneratorOptions(4, 1, antialias=True)
    critic = PatchDiscriminatorOptions(4, 2, "instance", antialias=True)
    return CUT(resolution=32, flip_equivariance=True, projection_width=8, generator=small, discriminator=critic)


def munit() -> ImageFamily:
    small = MunitOptions(4, blocks=1, style_dim=3, hidden=8)
    return MUNIT(resolution=32, lambda_cycle=1.0, autoencoder=small, discriminator=MultiscaleDiscriminatorOptions(4, 2))


def stargan() -> ImageFamily:
    return StarGANv2(resolution=32, num_classes=3, network=StarGANOptions(4, 8, 1, 3, 5, 8))


def stylegan1() -> ImageFamily:
    return StyleGAN1(
        resolution=32,
        latent_dim=8,
        mapping=MappingOptions(layers=1, w_dim=8),
        synthesis=style_one.SynthesisOptions(256, 8),
        discriminator=critics_one.DiscriminatorOptions(256, 8),
        growing=GrowingOptions(8, 0.0, 0.016),
    )


def ganformer() -> ImageFamily:
    widths = {"channel_base": 256, "channel_max": 8}
    return GANformer(
        resolution=32,
        latent_dim=24,
        mapping=ComponentMappingOptions(layers=2, w_dim=8, components=2),
        synthesis=ComponentSynthesisOptions(**widths, attention=AttentionOptions(iterations=2)),
        discriminator=critics.DiscriminatorOptions(**widths),
        path_length_weight=2.0,
        path_length_interval=2,
        r1_interval=2,
    )


def styleswin() -> ImageFamily:
    widths = {"channel_base": 256, "channel_max": 8}
    return StyleSwin(
        resolution=32,
        latent_dim=8,
        mapping=MappingOptions(layers=1, w_dim=8),
        synthesis=SwinOptions(**widths),
        discriminator=WaveletOptions(**widths),
        bcr_real_weight=1.0,
        bcr_fake_weight=1.0,
        diff_augment=DiffAugmentOptions(color=True, translation=0.1, cutout=0.2, flip=True),
        r1_interval=2,
    )


FAMILIES: dict[str, Callable[[], ImageFamily]] = {
    "non_saturating": gan(gradient_clip_norm=1.0),
    "conditional": gan(num_classes=3, loss="hinge", spectral_norm=True, normalization="none"),
    "lazy_r1": gan(loss="rpgan", r1_gamma=1.0, r2_gamma=1.0, r1_interval=2, normalization="none"),
    "wgan": gan(loss="wgan", normalization="layer", n_critic=2),
    "wgan_gp": gan(loss="wgan_gp", normalization="layer"),
    "stylegan1": stylegan1,
    "stylegan2": stylegan2,
    "stylegan3": stylegan3,
    "biggan": biggan,
    "r3gan": r3gan,
    "ganformer": ganformer,
    "styleswin": styleswin,
    "vae": lambda: VAE(resolution=32, latent_dim=8, autoencoder=AutoencoderOptions(8)),
    "micro_batches": lambda: VAE(resolution=32, latent_dim=8, autoencoder=AutoencoderOptions(8), micro_batches=2),
    "autoencoder_kl": autoencoder_kl,
    "cut": cut,
    "cyclegan": cyclegan,
    "munit": munit,
    "stargan": stargan,
    **{name: functools.partial(trained, name, channels=3) for name in TRAINED},
    "adain": style(lambda: AdaIN(resolution=32, style_mixing="channel")),
    "adain_experts": style(
        lambda: AdaIN(resolution=32, decoder=DecoderOptions(8, experts=ExpertOptions(3, 2, width=8)))
    ),
    "fast_style": style(fast_style),
    "stytr2": style(lambda: StyTr2(resolution=32, network=StyTr2Options(16, 2, 2, 1, window=2))),
    "capvst": style(
        lambda: CAPVST(
            resolution=32, content_weight=1.0, temporal_weight=1.0, network=ReversibleOptions(width=4, blocks=1)
        )
    ),
    "wct2": style(lambda: WCT2(resolution=32)),
    "mccnet": style(lambda: MCCNet(resolution=32, temporal_weight=1.0)),
}
STYLE = ("adain", "adain_experts", "fast_style", "stytr2", "capvst", "wct2", "mccnet")


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("family", "precision"),
    # A step of VGG takes long in 16 bits on a CPU.
    [(name, precision) for name in FAMILIES for precision in PRECISIONS if name not in STYLE or "true" in precision],
)
def test_no_step_reads_the_device(family: str, precision: str, tmp_path: Path) -> None:
    module, watch = FAMILIES[family](), Watch()
    images = photographs(32)[: 2 if family in STYLE else 4].repeat(2, 1, 1, 1)[: 2 if family in STYLE else 4]
    other = images.flip(0)
    batch = {"image": images, "style": other, "image_b": other, "label": torch.arange(len(images)) % 3}
    plugins: list[Precision] = [MixedPrecision("16-mixed", "cpu")] if precision == "16-mixed" else []
    chosen: dict[str, Any] = {"plugins": plugins} if plugins else {"precision": precision}
    trainer = bare_trainer(tmp_path, callbacks=[EMA(), watch], **chosen)
    trainer.fit(module, DataLoader([batch] * 4, batch_size=None))
    assert watch.steps == 4


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("family", ["lazy_r1"])
def test_no_step_of_several_ranks_reads_the_device(family: str, tmp_path: Path) -> None:
    module = FAMILIES[family]()
    batch = {"image": torch.rand(4, 3, 32, 32) * 2 - 1}
    strategy = MultiNetworkDDP(start_method="spawn")
    trainer = bare_trainer(tmp_path, callbacks=[EMA(), Watch()], devices=2, strategy=strategy)
    # A rank that fails ends the training with its error.
    trainer.fit(module, DataLoader([batch] * 4, batch_size=None))
    assert module.steps_done == 4 or trainer.state.finished
