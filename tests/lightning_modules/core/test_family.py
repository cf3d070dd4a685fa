"""The update of one network at a time, against plain PyTorch; micro-batches; the checks that speak to people."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from gesso.common.randomness import mix_seed
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.catalogue import FAMILIES, family
from lightning_modules.core.draws import NoiseRows
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.vae import AutoencoderOptions
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle
from tests.trainers import bare_trainer

SIZES: dict[str, Any] = {"resolution": 32, "channels": 1, "latent_dim": 8}
SMALL_VAE: dict[str, Any] = {**SIZES, "autoencoder": AutoencoderOptions(8)}
SMALL: dict[str, Any] = {**SIZES, "generator": GeneratorOptions(8), "discriminator": DiscriminatorOptions(8)}
UNNORMALIZED: dict[str, Any] = {**SMALL, "discriminator": DiscriminatorOptions(8, normalization="none")}


def batches(count: int, size: int = 8, classes: int = 4) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(size, 1, 32, 32, generator=generator) * 2 - 1,
            "label": torch.randint(classes, (size,), generator=generator),
            "position": (number + 1) * size,
        }
        for number in range(count)
    ]


class Loader:
    """Ready batches, as the data module hands them over."""

    def __init__(self, ready: list[dict[str, Any]]) -> None:
        self.ready = ready

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.ready)


def train(module: ImageFamily, ready: list[dict[str, Any]], tmp_path: Path, **options: Any) -> ImageFamily:
    trainer = bare_trainer(tmp_path, **options)
    trainer.fit(module, Loader(ready))
    return module


class Drawing(VAE):
    """Keeps what it draws."""

    def losses(self, batch: Any) -> Any:
        self.drawn = [*getattr(self, "drawn", []), self.randn(8, 4)]
        return super().losses(batch)


def test_a_second_training_draws_by_its_own_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Drawing(**SMALL_VAE)
    for seed in (0, 1):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        train(module, batches(3), tmp_path)
    for step, drawn in enumerate(module.drawn):
        rows = NoiseRows(mix_seed(step // 3, 8 * step), 0, 0, 1)
        assert torch.equal(drawn, rows.normal(8, (4,), module.device)), step


class DrawingHeldOut(VAE):
    """Keeps what it draws for held-out images."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.drawn: list[Tensor] = []

    def held_out_losses(self, batch: Any) -> Any:
        self.drawn.append(torch.cat([self.randn(8, 4), self.rand(8, 4)]))
        return super().held_out_losses(batch)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_held_out_losses_draw_the_same_in_every_validation(micro_batches: int, tmp_path: Path) -> None:
    module = DrawingHeldOut(**SMALL_VAE, micro_batches=micro_batches)
    trainer = bare_trainer(tmp_path, val_check_interval=2, num_sanity_val_steps=0)
    trainer.fit(module, DataLoader(batches(4), batch_size=None), DataLoader(batches(2), batch_size=None))
    trainer.validate(module, DataLoader(batches(2), batch_size=None), verbose=False)
    first, second, *later = module.drawn
    assert len(later) == 4
    assert not torch.equal(first, second)
    for drawn, expected in zip(later, [first, second, first, second], strict=True):
        assert torch.equal(drawn, expected)


def test_a_training_equals_the_textbook_loop(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = DCGAN(**UNNORMALIZED, loss="hinge", channels_last=False)
    plain = copy.deepcopy(module)
    ready = batches(3)
    train(module, ready, tmp_path)

    optimizers = plain.optimizers_by_network()
    plain.train()
    for step, batch in enumerate(ready):
        seed = mix_seed(0, 8 * step)
        noise = [NoiseRows(seed, update, 0, 1).normal(8, (8,), module.device) for update in (0, 1)]
        real = batch["image"]
        with torch.no_grad():
            fake = plain.generator(noise[0])
        loss = (1 - plain.discriminator(real)).relu().mean() + (1 + plain.discriminator(fake)).relu().mean()
        optimizers["discriminator"].zero_grad()
        loss.backward()
        optimizers["discriminator"].step()
        loss = -plain.discriminator(plain.generator(noise[1])).mean()
        optimizers["generator"].zero_grad()
        loss.backward()
        optimizers["generator"].step()
    for (name, ours), theirs in zip(module.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_micro_batches_sum_to_the_whole_batch(tmp_path: Path) -> None:
    # Without randomness, batch norm or Adam's division a batch in four parts must give the whole batch's gradient.
    class Deterministic(DCGAN):
        def optimizers_by_network(self) -> dict[str, torch.optim.Optimizer]:
            return {"discriminator": torch.optim.SGD(self.discriminator.parameters(), lr=0.1)}

        def step(self, batch: Any) -> None:
            self.update("discriminator", self.real_only, batch)

        def real_only(self, batch: Any) -> dict[str, Tensor]:
            return {"loss": self.discriminator(batch["image"]).square().mean()}

    torch.manual_seed(0)
    whole = Deterministic(**UNNORMALIZED)
    parts = copy.deepcopy(whole)
    parts.micro_batches = 4
    train(whole, batches(2), tmp_path)
    train(parts, batches(2), tmp_path)
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    norms = []

    class Spy(VAE):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            super().on_before_optimizer_step(optimizer)
            norms.append(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in self.parameters()])).item())

    train(Spy(**SMALL_VAE, gradient_clip_norm=0.5), batches(2), tmp_path)
    assert norms == pytest.approx([0.5, 0.5], rel=1e-3)


def test_gradients_are_clipped_after_unscaling(tmp_path: Path) -> None:
    # A fused Adam unscales in its own step, which is after the clip: the clip must not see scaled gradients.
    norms: dict[float, list[float]] = {}
    for scale in (1.0, 1024.0):

        class Spy(VAE):
            def on_before_optimizer_step(self, optimizer: Any) -> None:
                super().on_before_optimizer_step(optimizer)
                gradients = torch.cat([p.grad.flatten() for p in self.parameters()])
                norms.setdefault(scale, []).append(torch.linalg.vector_norm(gradients).item())  # noqa: B023

        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        plugin = MixedPrecision("bf16-mixed", "cpu")
        plugin.scaler = scaler
        torch.manual_seed(0)
        train(Spy(**SMALL_VAE, gradient_clip_norm=1e6), batches(1), tmp_path, plugins=[plugin])
    assert norms[1024.0] == pytest.approx(norms[1.0], rel=1e-3)


def test_a_resumed_run_takes_the_configs_learning_rate() -> None:
    saved, changed = (
        DCGAN(**SMALL, generator_optimizer=options)
        for options in (OptimizerOptions(lr=1e-3, beta1=0.5), OptimizerOptions(lr=0.5, beta1=0.9))
    )
    optimizers = saved.configure_optimizers()
    checkpoint: dict[str, Any] = {
        "state_dict": saved.state_dict(),
        "optimizer_states": [optimizer.state_dict() for optimizer in optimizers],
    }
    saved.on_save_checkpoint(checkpoint)
    changed.on_load_checkpoint(checkpoint)
    generator, discriminator = (state["param_groups"][0] for state in checkpoint["optimizer_states"])
    assert (generator["lr"], generator["betas"]) == (0.5, (0.9, 0.999))
    assert discriminator["lr"] == 2e-4
    assert generator["params"] == list(range(len(generator["params"])))


def test_only_the_updated_network_changes(tmp_path: Path) -> None:
    class DiscriminatorOnly(DCGAN):
        def step(self, batch: Any) -> None:
            self.update("discriminator", self.discriminator_losses, batch)
            assert all(p.requires_grad for p in self.parameters())
            assert all(p.grad is None for p in self.generator.parameters())

    module = DiscriminatorOnly(**SMALL)
    before = copy.deepcopy(module)
    train(module, batches(1), tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(module.generator.parameters(), before.generator.parameters(), strict=True)
    )
    pairs = zip(module.discriminator.named_parameters(), before.discriminator.parameters(), strict=True)
    unchanged = [name for (name, a), b in pairs if torch.equal(a, b)]
    assert not unchanged


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["vanilla", "non_saturating", "lsgan", "wgan", "wgan_gp", "hinge"])
def test_every_loss_trains_with_everything_on(loss: Any, tmp_path: Path) -> None:
    module = DCGAN(
        **SIZES,
        generator=GeneratorOptions(8, 16, spectral_norm=True, gradient_checkpointing=True),
        discriminator=DiscriminatorOptions(8, 16, True, normalization="layer", gradient_checkpointing=True),
        num_classes=4,
        loss=loss,
        r1_gamma=1.0,
        r1_interval=2,
        n_critic=2,
        micro_batches=2,
        gradient_clip_norm=1.0,
    )
    train(module, batches(4), tmp_path, precision="bf16-mixed")
    assert (module.images_seen, module.steps_done) == (32, 4)
    averages = module.pop_mean_losses()
    assert all(torch.tensor(list(averages.values())).isfinite())
    assert {"discriminator/r1", "generator/loss"} <= averages.keys()
    if loss == "wgan":
        weights = [p for name, p in module.discriminator.named_parameters() if "embedding" not in name]
        assert max(p.abs().max() for p in weights) <= 0.01 + 1e-6


def test_samples_depend_on_seed_and_index_alone() -> None:
    module = DCGAN(**SMALL, num_classes=4).eval().requires_grad_(False)
    # An untrained generator is nearly black; make what it says visible.
    module.generator.to_image.weight.mul_(1e4)
    whole = module.generate(torch.arange(6), seed=3)
    odd, even = (module.generate(torch.arange(first, 6, 2), seed=3) for first in (1, 0))
    torch.testing.assert_close(whole[[1, 3, 5, 0, 2, 4]], torch.cat([odd, even]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole, module.generate(torch.arange(6), seed=4), atol=1e-2)


@pytest.mark.parametrize(
    ("family", "name"), [(VAE, "beta"), (DCGAN, "r1_gamma"), (AdaIN, "style_weight"), (FastStyle, "tv_weight")]
)
def test_a_negative_weight_is_refused(family: type, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1; the weight of a loss must be 0 or more"):
        family(**{name: -1})


def test_vae_losses_are_the_evidence_lower_bound() -> None:
    module = VAE(**SMALL_VAE, beta=3.0).eval()
    batch = batches(1)[0]
    losses = module.held_out_losses(batch)
    mean, log_variance = module.autoencoder.encoder(batch["image"])
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    decoded = module.autoencoder.decoder(mean)
    squared = 0.5 * (decoded - batch["image"]).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(losses["kl"], kl)
    torch.testing.assert_close(losses["reconstruction"], squared)
    torch.testing.assert_close(losses["loss"], squared + 3 * kl)


def test_compiling_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    module = DCGAN(**SMALL, compile=True)
    monkeypatch.setattr(module, "requires_double_backward", lambda: ("generator", "discriminator"))
    with pytest.warns(UserWarning, match="--model.compile true compiles nothing"):
        module.configure_optimizers()


def test_data_that_does_not_fit_is_named() -> None:
    module = DCGAN(**SMALL, num_classes=10)
    module.check_data(channels=1, resolution=32, num_classes=10)
    with pytest.raises(ValueError, match=r"channels 3, DCGAN was built for 1.*--model.channels 3"):
        module.check_data(channels=3, resolution=32, num_classes=10)
    with pytest.raises(ValueError, match="resolution 64, DCGAN was built for 32"):
        module.check_data(channels=1, resolution=64, num_classes=10)
    with pytest.raises(ValueError, match="no classes, DCGAN was built for 10"):
        module.check_data(channels=1, resolution=32, num_classes=0)


def test_another_familys_or_architectures_checkpoint_is_refused() -> None:
    small, wide, vae = DCGAN(**SMALL), DCGAN(**{**SMALL, "generator": GeneratorOptions(16)}), VAE(**SMALL_VAE)
    checkpoint: dict[str, Any] = {"state_dict": small.state_dict(), "hyper_parameters": dict(small.hparams)}
    small.on_save_checkpoint(checkpoint)
    small.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="holds a DCGAN, the config asks for a VAE"):
        vae.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="another architecture of DCGAN.*generator.width: 8 -> 16"):
        wide.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="not a gesso checkpoint"):
        small.on_load_checkpoint({"state_dict": {}})


def test_the_catalogue_names_classes_that_are_there() -> None:
    for name in FAMILIES.own:
        assert family(name).__name__ == name
    with pytest.raises(ValueError, match="no family 'GAN'; there are AdaIN, "):
        family("GAN")


def test_wgan_gp_refuses_batch_norm() -> None:
    with pytest.raises(ValueError, match="normalization to layer or none"):
        DCGAN(**SMALL, loss="wgan_gp")
