"""StyleSwin: consistency, W; it resumes to the bit; ranks, micro-batches and recomputed blocks train alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.styleswin import StyleSwin
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.styleswin.discriminator import WaveletOptions
from lightning_modules.networks.styleswin.generator import SwinOptions
from tests.lightning_modules.gan.alike import check_w_space, resumed_to_the_bit, trained_alike, two_ranks_alike
from tests.lightning_modules.gan.test_stylegan2 import AUGMENT, BATCH, Data, Rows, small

WIDTHS: dict[str, Any] = {"channel_base": 128, "channel_max": 8}


def narrow(
    kind: type[StyleSwin] = StyleSwin,
    *,
    checkpointing: bool = False,
    features: int = 1,
    spectral: bool = True,
    **options: Any,
) -> StyleSwin:
    swin = SwinOptions(**WIDTHS, window=4, mlp_ratio=2.0, gradient_checkpointing=checkpointing)
    critic = WaveletOptions(
        **WIDTHS,
        spectral_norm=spectral,
        mapping_layers=2,
        minibatch_features=features,
        gradient_checkpointing=checkpointing,
    )
    chosen: dict[str, Any] = {
        "mapping": MappingOptions(layers=2, w_dim=12),
        "synthesis": swin,
        "discriminator": critic,
        "path_length_weight": 0.0,
        "style_mixing": 0.0,
        "bcr_real_weight": 10.0,
        "bcr_fake_weight": 5.0,
    }
    module = small(kind, **{**chosen, **options})
    assert isinstance(module, StyleSwin)
    # Where wavelets of even areas are 0 but for rounding, a bias of 0 would leave the slope of a ReLU to chance.
    for layer in module.discriminator.from_images:
        torch.nn.init.constant_(layer.bias, 0.1)  # type: ignore[arg-type]
    return module


class Fixed(StyleSwin):
    """Draws the same noise for every call, without a trainer."""

    def rand(self, count: int, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))

    def randn(self, count: int, *shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_consistency_is_of_the_logits_of_changed_images() -> None:
    module = narrow(Fixed).eval()
    batch = {"image": torch.rand(4, 1, 16, 16) * 2 - 1, "label": torch.arange(4) % 3}
    losses = module.discriminator_losses(batch)
    logits = [module.discriminator(x, batch["label"]) for x in (batch["image"], module.changes(batch["image"], module))]
    expected = (logits[0] - logits[1]).square().mean()
    torch.testing.assert_close(losses["bcr_real"], expected)
    assert expected > 0
    assert losses["bcr_fake"] >= 0
    bare = narrow(Fixed, bcr_real_weight=0.0, bcr_fake_weight=0.0).eval()
    bare.load_state_dict(module.state_dict())
    plain = bare.discriminator_losses(batch)
    assert not plain.keys() & {"bcr_real", "bcr_fake"}
    added = 10 * losses["bcr_real"] + 5 * losses["bcr_fake"]
    torch.testing.assert_close(losses["loss"], plain["loss"] + added)


def test_optimizers_are_as_they_were_given() -> None:
    optimizer = OptimizerOptions(lr=2e-4, beta1=0.0, beta2=0.99)
    module = narrow(generator_optimizer=optimizer, discriminator_optimizer=optimizer)
    assert module.optimization() == {"generator": optimizer, "discriminator": optimizer}


def test_its_space_w_is_that_of_a_stylegan() -> None:
    module = narrow().eval()
    check_w_space(module, layers=6, styles=[(32, 12)] * 6)
    index = torch.arange(3)
    times = torch.zeros(3, dtype=torch.float64)
    labels = index % module.num_classes
    found = module.on_path(index, times, seed=1, space="w").clamp(-1, 1)
    torch.testing.assert_close(found, module.generate(2 * index, seed=1, labels=labels), atol=1e-5, rtol=1e-4)


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    resumed_to_the_bit(tmp_path, lambda: narrow(augmentation=AUGMENT), Rows, until=4, batch_size=BATCH)


@pytest.mark.parametrize("other", [{"micro_batches": 2}, {"checkpointing": True}], ids=str)
def test_micro_batches_and_recomputed_blocks_train_like_the_whole(tmp_path: Path, other: dict[str, Any]) -> None:
    # Groups of the minibatch deviation, and steps of spectral norm, are of a micro-batch.
    plain: dict[str, Any] = {"features": 0, "spectral": False}
    one, two = narrow(**plain), narrow(**plain, **other)
    trained_alike(tmp_path, one, two, Data(3))


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    two_ranks_alike(tmp_path, narrow, Data(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 8}, "resolution is 8; StyleSwin's discriminator needs 16 or more"),
        ({"synthesis": SwinOptions(channel_max=6)}, "gives 6 channels at 4 px"),
        ({"bcr_real_weight": -1.0}, "bcr_real_weight"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        narrow(**options)
