"""beta-TCVAE and FactorVAE: what they minimise, who is updated, resuming, checkpointing, ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from launch.callbacks.ema import EMA
from lightning_modules.autoencoder.factor_vae import FactorVAE
from lightning_modules.autoencoder.tcvae import BetaTCVAE
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.losses.total_correlation import decompose_kl
from lightning_modules.losses.variational import gaussian_kl, reconstruction_loss
from lightning_modules.networks.latent_discriminator import LatentDiscriminatorOptions
from lightning_modules.networks.vae import AutoencoderOptions
from tests.launch.strategies.alike import strategies_train_alike
from tests.lightning_modules.translation.domains import check_same
from tests.trainers import bare_trainer

COUNT, LATENTS = 6, 4
CRITIC = LatentDiscriminatorOptions(8, 2)


class Given:
    """Draws that a test knows: zeros would hide what is drawn."""

    def randn(self, count: int, *shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))

    def rand(self, count: int, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=torch.Generator().manual_seed(6))


class GivenTC(Given, BetaTCVAE):
    pass


class GivenFactor(Given, FactorVAE):
    pass


def small(family: type[VAE], **options: Any) -> Any:
    torch.manual_seed(0)
    given: dict[str, Any] = {"resolution": 32, "channels": 1, "latent_dim": LATENTS}
    given |= {"autoencoder": AutoencoderOptions(4)}
    if issubclass(family, FactorVAE):
        given |= {"discriminator": CRITIC}
    return family(**(given | options))


def images(number: int = 0) -> Tensor:
    return torch.rand(COUNT, 1, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1


def posterior(module: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    noise = module.randn(COUNT, LATENTS)
    decoded, mean, log_variance = module.autoencoder(images(), noise)
    return reconstruction_loss("mse", decoded, images()), mean, log_variance, mean + (0.5 * log_variance).exp() * noise


def test_the_terms_of_a_tcvae_are_weighed() -> None:
    module = small(GivenTC, alpha=0.5, beta=4.0, gamma=2.0, sampling="stratified")
    module.take_set_size(100)
    found = module.losses({"image": images()})
    reconstruction, mean, log_variance, z = posterior(module)
    information, correlation, dimension_wise = decompose_kl(z, mean, log_variance, images=100, sampling="stratified")
    expected = reconstruction + 0.5 * information + 4 * correlation + 2 * dimension_wise
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert found["total_correlation"].item() == pytest.approx(correlation.item(), rel=1e-6)


def test_a_factor_vae_adds_the_mean_logit() -> None:
    module = small(GivenFactor, gamma=7.0, beta=2.0)
    found = module.losses({"image": images()})
    reconstruction, mean, log_variance, z = posterior(module)
    expected = reconstruction + 2 * gaussian_kl(mean, log_variance).mean() + 7 * module.discriminator(z).mean()
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    critic = module.discriminator_losses({"image": images()})
    order = module.rand(COUNT, LATENTS).argsort(0)
    dealt = torch.stack([z[order[:, j], j] for j in range(LATENTS)], 1)
    joint, apart = module.discriminator(z).sigmoid(), module.discriminator(dealt).sigmoid()
    assert critic["loss"].item() == pytest.approx(-0.5 * (joint.log().mean() + (1 - apart).log().mean()).item(), 1e-5)
    critic["loss"].backward()
    assert all(parameter.grad is None for parameter in module.autoencoder.parameters())
    assert all(parameter.grad is not None for parameter in module.discriminator.parameters())


@pytest.mark.parametrize("family", [BetaTCVAE, FactorVAE])
def test_without_their_weights_they_are_a_vae(family: type[VAE]) -> None:
    """Stratified sampling's constants cancel where all weights are 1."""
    options = {"gamma": 0.0} if family is FactorVAE else {"beta": 1.0}
    module, vae = small(family, **options), small(VAE)
    vae.autoencoder.load_state_dict(module.autoencoder.state_dict())
    ours, theirs = (m.held_out_losses({"image": images()}) for m in (module.eval(), vae.eval()))
    assert {name: value.item() for name, value in ours.items()} == {n: v.item() for n, v in theirs.items()}


def test_options_are_kept() -> None:
    module = small(BetaTCVAE, beta=3.0, gamma=0.5)
    assert module.hparams["beta"] == 3.0
    again = BetaTCVAE.from_options(dict(module.hparams))
    assert again.term_weights == (1.0, 3.0, 0.5)
    assert again.latent_dim == LATENTS
    assert again.beta == 1.0
    with pytest.raises(ValueError, match="gamma"):
        small(FactorVAE, gamma=-1.0)


class Rows:
    """Batches of steps ``first`` to ``until``."""

    def __init__(self, first: int, until: int) -> None:
        self.steps = range(first, until)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            yield {"image": images(step), "position": (step + 1) * COUNT}


def train(module: Any, folder: Path, first: int, until: int, resume: Path | None = None) -> dict[str, Any]:
    module.take_set_size(60)
    trainer = bare_trainer(folder, callbacks=[EMA(half_life_kimg=[0.02])], max_epochs=2 if resume else 1)
    trainer.fit(module, Rows(first, until), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    found: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return found


@pytest.mark.parametrize("family", [BetaTCVAE, FactorVAE])
def test_it_resumes_to_the_bit(family: type[VAE], tmp_path: Path) -> None:
    whole = train(small(family), tmp_path / "whole", 0, 4)
    train(small(family), tmp_path / "half", 0, 2)
    module = small(family)
    for value in module.parameters():
        torch.nn.init.zeros_(value)
    check_same(whole, train(module, tmp_path / "again", 2, 4, resume=tmp_path / "half" / "last.ckpt"))


@pytest.mark.parametrize("family", [BetaTCVAE, FactorVAE])
def test_checkpointing_changes_nothing(family: type[VAE], tmp_path: Path) -> None:
    one = train(small(family), tmp_path / "one", 0, 2)["state_dict"]
    recomputed = AutoencoderOptions(4, gradient_checkpointing=True)
    two = train(small(family, autoencoder=recomputed), tmp_path / "two", 0, 2)["state_dict"]
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_the_traversal_changes_one_latent_in_each_row() -> None:
    module = small(BetaTCVAE).eval()
    with torch.no_grad():
        found = module.traversal(images(), rows=3, columns=5)
        assert found.images.shape == (15, 1, 32, 32)
        rows = found.images.unflatten(0, (3, 5))
        mean, log_variance = module.autoencoder.encoder(images())
        told = (0.5 * (mean.square() + log_variance.exp() - log_variance - 1)).mean(0)
        code = mean[0].clone()
        code[told.argsort(descending=True)[1]] = 2.0
        torch.testing.assert_close(rows[1, -1], module.decode(code[None], None)[0])


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("family", ["tcvae", "factor_vae"])
def test_stages_of_zero_train_like_ddp(family: str, tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, family, ("ddp", "zero2", "zero3"), until=3, abs=1e-4)
