"""R3GAN trains as the authors' code does; resumes to the bit; and finds every mode."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gesso.common.schedules import Schedule
from launch.callbacks.ema import EMA
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.r3gan import R3GAN
from lightning_modules.networks.augment.adaptive import AugmentOptions
from lightning_modules.networks.r3gan import R3Options
from tests.formulas import gradient_sums, set_weights_, waves
from tests.lightning_modules.gan.alike import moved_alike, resumed_to_the_bit
from tests.trainers import bare_trainer

REFERENCE = Path(__file__).parents[2] / "fixtures" / "networks" / "r3gan.npz"
OPTIONS = R3Options(widths=(24, 16, 16), blocks=2, expansion=2, group_width=8)
COUNT, LATENT, SIDE, CLASSES = 4, 8, 16, 3
BATCH = 8
#: Its steps do not blow rounding errors up.
SMOOTH = OptimizerOptions(
    lr=2e-2, beta1=0.0, beta2=0.9, eps=1e-2, schedule="cosine", decay_kimg=0.06, final_lr=5e-3, final_beta2=0.99
)
#: p rises from 0.2 within a few steps.
AUGMENT = AugmentOptions("bgc_cutout", color_share=0.5, schedule=Schedule(0.2, 0.8, over_kimg=0.06))


def small(kind: type[R3GAN] = R3GAN, **options: Any) -> R3GAN:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "resolution": SIDE,
        "latent_dim": LATENT,
        "num_classes": CLASSES,
        "generator": OPTIONS,
        "discriminator": OPTIONS,
        "r1_gamma": Schedule(0.5, 0.05, over_kimg=0.06),
        "r2_gamma": Schedule(0.5, 0.05, over_kimg=0.06),
        "generator_optimizer": SMOOTH,
        "discriminator_optimizer": SMOOTH,
    }
    return kind(**{**chosen, **options})


class Given(R3GAN):
    """Its latents are a formula: those that the authors' code was given."""

    number = 1.0

    def fakes(self, batch: Mapping[str, Any]) -> Tensor:
        z = waves(len(batch["image"]), LATENT, number=self.number, scale=1.5).to(batch["image"])
        return self.generator(z, self.labels_of(dict(batch)))


class GivenBySteps(Given):
    def fakes(self, batch: Mapping[str, Any]) -> Tensor:
        self.number = 200.0 + 10 * self.steps_done + (self.updating == ("generator",))
        return super().fakes(batch)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("name", "classes"), [("plain", 0), ("conditional", CLASSES)])
def test_losses_and_gradients_are_those_of_the_authors(
    name: str, classes: int, dtype: torch.dtype, tolerance: float
) -> None:
    module = small(Given, num_classes=classes, r1_gamma=50.0, r2_gamma=50.0).to(dtype)
    batch = {
        "image": waves(COUNT, 3, SIDE, SIDE, number=2).to(dtype),
        "label": torch.arange(COUNT) % CLASSES,
    }
    found: dict[str, Tensor] = {}
    for network in (module.generator, module.discriminator):
        set_weights_(network, scale=0.27)
    for network, losses in (("discriminator", module.discriminator_losses), ("generator", module.generator_losses)):
        module.requires_grad_(False)
        getattr(module, network).requires_grad_(True)
        values = losses(batch)
        values["loss"].backward()
        found[f"{network}_gradients"] = gradient_sums(getattr(module, network))
        if network == "generator":
            found[network] = values["loss"][None]
        else:
            penalties = 25 * (values["r1"] + values["r2"])
            found[network] = torch.stack([values["loss"] - penalties, values["r1"], values["r2"]])
    with np.load(REFERENCE) as reference:
        for key, ours in found.items():
            expected = torch.from_numpy(reference[f"{name}/{key}"])
            apart = (ours.detach().double() - expected).abs().max() / expected.abs().max()
            assert apart <= tolerance, f"{key}: {apart:.2g}"


class Rows:
    """Batches of steps ``first`` to ``until``."""

    def __init__(self, first: int, until: int, size: int = BATCH) -> None:
        self.steps, self.size = range(first, until), size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            images = waves(self.size, 3, SIDE, SIDE, number=100 + step).to(torch.get_default_dtype())
            labels = (torch.arange(self.size) + step) % CLASSES
            yield {"image": images, "label": labels, "position": (step + 1) * self.size}


def weight_sums(network: nn.Module, values: Mapping[str, Tensor] | None = None) -> Tensor:
    found = []
    for number, (name, parameter) in enumerate(network.named_parameters()):
        value = parameter.detach() if values is None else values[f"generator.{name}"].double()
        found.append((value * waves(*value.shape, number=number + 0.5)).sum())
    return torch.stack(found)


@pytest.mark.usefixtures("double")
def test_updates_under_all_schedules_are_the_authors(tmp_path: Path) -> None:
    optimizer = OptimizerOptions(
        lr=2e-3, beta1=0.0, beta2=0.9, schedule="cosine", decay_kimg=0.016, final_lr=5e-4, final_beta2=0.99
    )
    gamma = Schedule(0.5, 0.05, over_kimg=0.016)
    given = {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer}
    module = small(GivenBySteps, r1_gamma=gamma, r2_gamma=gamma, **given)
    for network in (module.generator, module.discriminator):
        set_weights_(network, scale=0.27)
    before = {name: weight_sums(getattr(module, name)) for name in ("generator", "discriminator")}
    ema = EMA(Schedule(0.0, 0.04, over_kimg=0.016), ramp_up=0)
    bare_trainer(tmp_path, precision="64-true", callbacks=[ema]).fit(module, Rows(0, 6, size=4))
    with np.load(REFERENCE) as reference:
        for name, start in before.items():
            expected = torch.from_numpy(reference[f"training/{name}"])
            moved = (expected - start).abs().max()
            assert moved > 0.05
            assert (weight_sums(getattr(module, name)) - expected).abs().max() < 1e-6 * moved
        # The average is kept in float32.
        average = weight_sums(module.generator, module.averages["ema"].values)
        expected = torch.from_numpy(reference["training/ema"])
        assert (expected - torch.from_numpy(reference["training/generator"])).abs().max() > 0.01
        assert (average - expected).abs().max() < 1e-4


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    def growing() -> EMA:
        return EMA(Schedule(0.0, 0.1, over_kimg=0.06), ramp_up=0)

    make = functools.partial(small, augmentation=AUGMENT)
    whole = resumed_to_the_bit(tmp_path, make, Rows, until=6, batch_size=BATCH, average=growing)
    assert whole.augmentation is not None
    # p of the last step, after 40 of 60 images: three quarters of the way.
    assert whole.augmentation.p.item() == pytest.approx(0.2 + 0.6 * 0.75, abs=1e-5)


def test_micro_batches_and_recomputed_blocks_train_like_the_whole_batch(tmp_path: Path) -> None:
    recomputed = R3Options(widths=(24, 16, 16), group_width=8, gradient_checkpointing=True)
    one, two = (
        small(augmentation=AUGMENT, micro_batches=parts, generator=network, discriminator=network)
        for parts, network in ((1, OPTIONS), (2, recomputed))
    )
    before = copy.deepcopy(one.state_dict())
    bare_trainer(tmp_path).fit(one, Rows(0, 3))
    bare_trainer(tmp_path).fit(two, Rows(0, 3))
    moved_alike(one, two, before)


def test_penalties_by_first_derivatives_stand_in(tmp_path: Path) -> None:
    assert small().requires_double_backward() == ("discriminator",)
    gamma = Schedule(0.5, 0.05, over_kimg=0.06)
    module = small(r1_gamma=0.0, r2_gamma=0.0, first_order_gamma=gamma, first_order_fake_gamma=gamma)
    assert module.requires_double_backward() == ()
    bare_trainer(tmp_path).fit(module, Rows(0, 2))
    losses = module.pop_mean_losses()
    assert losses["discriminator/first_order"] > 0
    assert losses["discriminator/first_order_fake"] > 0


def test_pictures_are_in_range_and_of_their_class() -> None:
    module = small().eval()
    with torch.no_grad():
        module.generator.to_image.weight.mul_(10)
    images = module.generate(torch.arange(6), seed=0)
    assert images.shape == (6, 3, SIDE, SIDE)
    assert images.abs().max() == 1
    other = module.generate(torch.arange(6), seed=0, labels=(torch.arange(6) + 1) % CLASSES)
    assert not torch.equal(images, other)


class Points(R3GAN):
    """R3GAN of points in the plane, as images ``[N, 2, 1, 1]``: its loss and penalties alone decide."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            resolution=4, channels=1, generator=R3Options((16,)), discriminator=R3Options((16,)), **options
        )

        def perceptron(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for before in (inputs, 128, 128):
                layers += [nn.Linear(before, 128), nn.LeakyReLU(0.2)]
            return nn.Sequential(*layers, nn.Linear(128, outputs))

        class Plane(nn.Module):
            def __init__(self, inputs: int, outputs: int, shape: tuple[int, ...]) -> None:
                super().__init__()
                self.layers, self.shape = perceptron(inputs, outputs), shape

            def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
                return self.layers(x.flatten(1)).view(len(x), *self.shape)

        torch.manual_seed(0)
        self.generator = Plane(self.latent_dim, 2, (2, 1, 1))  # type: ignore[assignment]
        self.discriminator = Plane(2, 1, ())  # type: ignore[assignment]


def ring() -> Tensor:
    angles = torch.arange(8) * torch.pi / 4
    return torch.stack([angles.cos(), angles.sin()], 1)


def grid() -> Tensor:
    side = torch.linspace(-1, 1, 5)
    return torch.cartesian_prod(side, side)


@pytest.mark.proof
@pytest.mark.parametrize(("modes", "spread"), [(ring(), 0.02), (grid(), 0.03)], ids=["ring", "grid"])
def test_every_mode_is_found(modes: Tensor, spread: float, tmp_path: Path) -> None:
    class Mixture:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            generator = torch.Generator().manual_seed(0)
            for _ in range(4000):
                chosen = modes[torch.randint(len(modes), (256,), generator=generator)]
                points = chosen + spread * torch.randn(256, 2, generator=generator)
                yield {"image": points[:, :, None, None]}

    optimizer = OptimizerOptions(
        lr=1e-3, beta1=0.0, beta2=0.9, schedule="cosine", decay_kimg=1024.0, final_lr=1e-4, final_beta2=0.99
    )
    gamma = Schedule(0.1, 0.01, over_kimg=1024.0)
    given = {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer}
    module = Points(latent_dim=2, r1_gamma=gamma, r2_gamma=gamma, channels_last=False, **given)
    bare_trainer(tmp_path, callbacks=[EMA(10.0)]).fit(module, Mixture())  # type: ignore[arg-type]
    with module.evaluating():
        points = module.generator(module.latents(torch.arange(5000), seed=1), None)[:, :, 0, 0]
    away, nearest = torch.cdist(points, modes).min(1)
    # A point counts where it lies within four standard deviations of its mode, and a mode that has 20 of 5,000 points.
    good = away < 4 * spread
    counts = torch.bincount(nearest[good], minlength=len(modes))
    print(f"{good.float().mean():.3f} of the points near a mode; the rarest has {counts.min().item()}")
    assert counts.min() >= 20
    assert good.float().mean() > 0.6
