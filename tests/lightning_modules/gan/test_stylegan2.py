"""StyleGAN2 trains as the authors' code does; resumes to the bit; and two ranks train like one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.stylegan2 import StyleGAN2
from lightning_modules.networks.augment.adaptive import AugmentOptions
from lightning_modules.networks.stylegan2.discriminator import DiscriminatorOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan2.synthesis import SynthesisOptions
from tests.lightning_modules.gan.alike import resumed_to_the_bit, trained_alike, two_ranks_alike
from tests.lightning_modules.networks.stylegan2.mapped import CLASSES, figures, fill_, formula, projections
from tests.trainers import bare_trainer

BATCH, SIDE = 8, 16
WIDTHS: dict[str, Any] = {"channel_base": 128, "channel_max": 16}
#: An optimizer whose steps do not blow rounding errors up.
SMOOTH = OptimizerOptions(lr=2e-2, beta1=0.0, beta2=0.99, eps=1e-2)

#: So that p moves within a few steps.
AUGMENT = AugmentOptions("bgc", target=0.4, interval=2, kimg=0.05, initial_p=0.5)


def small(kind: type[StyleGAN2] = StyleGAN2, *, features: int = 1, w_dim: int = 12, **options: Any) -> StyleGAN2:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "resolution": SIDE,
        "channels": 1,
        "latent_dim": 8,
        "num_classes": CLASSES,
        "mapping": MappingOptions(layers=2, w_dim=w_dim),
        "synthesis": SynthesisOptions(**WIDTHS),
        "discriminator": DiscriminatorOptions(**WIDTHS, mapping_layers=2, minibatch_features=features),
        "r1_gamma": 0.5,
        "r1_interval": 4,
        "path_length_interval": 2,
        "generator_optimizer": SMOOTH,
        "discriminator_optimizer": SMOOTH,
    }
    return kind(**{**chosen, **options})


def augmented() -> StyleGAN2:
    return small(augmentation=AUGMENT)


class Rows:
    """The same global batches for any number of ranks, of steps ``first`` to ``until``."""

    def __init__(self, first: int, until: int, size: int = BATCH, rank: int = 0, ranks: int = 1) -> None:
        self.steps, self.size, self.rank, self.ranks = range(first, until), size, rank, ranks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            images = formula((self.size, 1, SIDE, SIDE), 100 + step) * 0.5
            labels = (torch.arange(self.size) + step) % CLASSES
            own = slice(self.rank, None, self.ranks)
            yield {"image": images[own], "label": labels[own], "position": (step + 1) * self.size}


class Data(L.LightningDataModule):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> Any:
        return Rows(0, self.steps, rank=self.trainer.global_rank, ranks=self.trainer.world_size)  # type: ignore[union-attr]


class Quiet(StyleGAN2):
    """Trains with the constant noise."""

    def synthesis_noise(self, count: int) -> Any:
        return "constant"


@pytest.mark.usefixtures("double")
def test_updates_with_all_lazy_phases_are_the_authors(tmp_path: Path) -> None:
    optimizer = OptimizerOptions(lr=2e-3, beta1=0.0, beta2=0.99)
    module = small(Quiet, style_mixing=0.0, generator_optimizer=optimizer, discriminator_optimizer=optimizer)
    fill_(module.generator)
    fill_(module.discriminator)
    before = {name: projections(getattr(module, name).state_dict()) for name in ("generator", "discriminator")}
    bare_trainer(tmp_path, precision="64-true").fit(module, Rows(0, 8, size=4))
    expected = figures("training")
    assert module.path_length is not None
    torch.testing.assert_close(module.path_length.mean, expected["path_length_mean"], rtol=1e-6, atol=0)
    for name, start in before.items():
        found = projections(getattr(module, name).state_dict())
        moved = (expected[name] - start).abs().max()
        assert moved > 0.1
        assert (found - expected[name]).abs().max() < 1e-6 * moved


def test_learning_rates_and_betas_are_corrected_for_the_lazy_updates() -> None:
    optimizer = OptimizerOptions(lr=2e-3, beta1=0.5, beta2=0.99)
    given: dict[str, Any] = {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer}
    found = small(r1_interval=16, path_length_interval=4, **given).optimization()
    assert (found["generator"].lr, found["discriminator"].lr) == pytest.approx((2e-3 * 4 / 5, 2e-3 * 16 / 17))
    assert (found["generator"].beta1, found["generator"].beta2) == pytest.approx((0.5**0.8, 0.99**0.8))
    assert small(r1_gamma=0.0, path_length_weight=0.0, **given).optimization() == {
        "generator": optimizer,
        "discriminator": optimizer,
    }


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    whole = resumed_to_the_bit(tmp_path, augmented, Rows, until=6, batch_size=BATCH)
    average = whole.averages["ema"].values
    # It is the present mean of w that generates, not an average of it.
    assert torch.equal(average["generator.mapping.w_avg"], whole.generator.mapping.w_avg)
    assert whole.generator.mapping.w_avg.any()
    # Between two changes of p, the logits' signs are part of the state as well.
    assert whole.augmentation is not None
    assert whole.augmentation.strength.item() != 25


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    two_ranks_alike(tmp_path, augmented, Data(3))


def test_micro_batches_train_like_the_whole_batch(tmp_path: Path) -> None:
    # Groups of the minibatch deviation, and the path lengths' mean, are of a micro-batch.
    options: dict[str, Any] = {"features": 0, "path_length_weight": 0.0, "augmentation": AUGMENT}
    one, two = (small(micro_batches=parts, **options) for parts in (1, 2))
    trained_alike(tmp_path, one, two, Data(3))


def test_styles_are_mixed_in_the_given_share_of_updates() -> None:
    seen = []
    module = small(style_mixing=0.9)
    module.generator.synthesis.forward = lambda ws, noise: ws  # type: ignore[method-assign,assignment]
    for step in range(200):
        module._now.updates = step
        _, ws = module.synthesized(2, torch.zeros(2, dtype=torch.int64))
        changes = [layer for layer in range(1, ws.shape[1]) if not torch.equal(ws[:, layer], ws[:, layer - 1])]
        assert len(changes) <= 1
        seen.append(changes[0] if changes else 0)
    assert seen.count(0) == pytest.approx(20, abs=12)
    assert set(seen) == set(range(module.generator.synthesis.num_ws))


def test_truncated_pictures_come_near_their_mean() -> None:
    module = small(truncation_psi=0.0).eval()
    images = module.generate(torch.arange(4), seed=0, labels=torch.zeros(4, dtype=torch.int64))
    assert images.abs().max() <= 1
    torch.testing.assert_close(images, images[:1].expand(4, -1, -1, -1))
    undo = module.sample_with({"truncation_psi": 0.5, "truncation_cutoff": 2})
    assert module.sampled() == {"truncation_psi": 0.5, "truncation_cutoff": 2}
    assert not torch.equal(module.generate(torch.arange(4), seed=0, labels=torch.zeros(4, dtype=torch.int64)), images)
    assert module.sample_with(undo) == {"truncation_psi": 0.5, "truncation_cutoff": 2}
    assert module.sampled() == {"truncation_psi": 0.0}
    with pytest.raises(ValueError, match="takes truncation, no sampler"):
        module.sample_with({"sampler": "ddpm"})
    with pytest.raises(ValueError, match="truncation_psi is 1.5; it must be from 0 to 1"):
        module.sample_with({"truncation_psi": 1.5})


def test_a_batch_that_no_group_divides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"micro-batch of 6 images is no multiple of .*minibatch_group \(4\)"):
        bare_trainer(tmp_path).fit(small(), Rows(0, 1, size=6))
