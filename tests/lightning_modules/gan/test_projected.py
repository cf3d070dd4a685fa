"""Projected GANs: what is trained and what is not; who may judge; resuming, ranks and recomputed blocks."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from launch.callbacks.ema import EMA
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.projected import CHANNELS, ProjectedGAN
from lightning_modules.metrics.evaluator import EvaluationOptions
from lightning_modules.networks.augment.differentiable import DiffAugmentOptions
from lightning_modules.networks.fastgan import FastGANOptions
from lightning_modules.networks.projected import FeaturePyramid
from tests.lightning_modules.gan.alike import moved_alike, resumed_to_the_bit, trained_on_two_ranks
from tests.lightning_modules.gan.test_stylegan2 import BATCH, SIDE, Data, Rows
from tests.trainers import bare_trainer

CLASSES = 3
#: Its steps do not blow rounding errors up.
SMOOTH = OptimizerOptions(lr=2e-2, beta1=0.0, beta2=0.99, eps=1e-2)


def stand_in() -> Frozen[FeaturePyramid]:
    """A small frozen network with the channels and reductions of the real one."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layers = [nn.Conv2d(3, CHANNELS[0], 4, stride=4)]
        layers += [nn.Conv2d(before, after, 2, stride=2) for before, after in pairwise(CHANNELS)]
    return Frozen(FeaturePyramid(layers, (1, 2, 3, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))


def small(*, checkpointing: bool = False, **options: Any) -> ProjectedGAN:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "resolution": SIDE,
        "channels": 1,
        "latent_dim": 8,
        "num_classes": CLASSES,
        "generator": FastGANOptions(8, gradient_checkpointing=checkpointing),
        "feature_size": 64,
        "mixed_width": 8,
        "generator_optimizer": SMOOTH,
        "discriminator_optimizer": SMOOTH,
    }
    module = ProjectedGAN(**{**chosen, **options})
    module._features = stand_in()
    return module


def test_the_frozen_network_and_the_mixing_stay(tmp_path: Path) -> None:
    module = small()
    frozen = module._features
    assert frozen is not None
    before = copy.deepcopy({**module.state_dict(), **frozen.network.state_dict()})
    assert not any("_features" in name for name in module.state_dict())
    bare_trainer(tmp_path, callbacks=[EMA()]).fit(module, Rows(0, 3))
    after = {**module.state_dict(), **frozen.network.state_dict()}
    trained = dict(module.named_parameters())
    for name, value in before.items():
        if "mixing" in name or name in frozen.network.state_dict():
            assert torch.equal(after[name], value), name
        # A bias in front of a batch norm has no gradient but rounding errors.
        elif name in trained and not name.endswith("bias"):
            assert not torch.equal(after[name], value), name
    assert module.requires_double_backward() == ()
    # Noise of learned strength in training alone: a picture depends on its number.
    module.eval()
    images = module.generate(torch.arange(4), seed=0)
    assert images.shape == (4, 1, SIDE, SIDE)
    assert images.abs().max() <= 1
    torch.testing.assert_close(module.generate(torch.tensor([2]), seed=0), images[2:3], atol=1e-5, rtol=1e-4)


def test_a_gradient_reaches_the_generator_through_the_frozen_network() -> None:
    module = small(diff_augment=DiffAugmentOptions())
    images = torch.randn(2, 1, SIDE, SIDE, requires_grad=True)
    module._critic(torch.tensor([0, 1]))(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_it_is_judged_by_another_network() -> None:
    module = small()
    with pytest.raises(ValueError, match=r"fid/mobilenet_v2, kid/.*: a ProjectedGAN's discriminator looks through"):
        module.evaluator(EvaluationOptions(extractor="mobilenet_v2"))
    evaluator = module.evaluator(EvaluationOptions())
    assert evaluator is not None
    assert "fid/inception-tf" in evaluator.names
    # What looks at no features of it is measured with any.
    assert module.evaluator(EvaluationOptions(metrics=("ppl_zend",), extractor="mobilenet_v2")) is not None
    assert module.published_weights() == ("mobilenet_v2",)


def test_penalties_are_refused() -> None:
    with pytest.raises(ValueError, match="r1: a ProjectedGAN has no penalties"):
        small(r1_gamma=1.0)


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    resumed_to_the_bit(tmp_path, small, Rows, until=4, batch_size=BATCH)


def test_recomputed_blocks_train_alike(tmp_path: Path) -> None:
    one, two = small(), small(checkpointing=True)
    before = copy.deepcopy(one.state_dict())
    bare_trainer(tmp_path).fit(one, Rows(0, 2))
    bare_trainer(tmp_path).fit(two, Rows(0, 2))
    moved_alike(one, two, before, atol=1e-4)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.usefixtures("double")
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    # Of batch norm: statistics of all ranks. In fp32 that of the smallest maps blows rounding errors up.
    one = small()
    before = copy.deepcopy(one.state_dict())
    bare_trainer(tmp_path).fit(one, Data(2))
    two = trained_on_two_ranks(tmp_path, small, steps=2, sync_batchnorm=True)
    moved_alike(one, two, before, rtol=1e-5, atol=1e-6)
