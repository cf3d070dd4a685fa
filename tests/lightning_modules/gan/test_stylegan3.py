"""StyleGAN3: magnitudes follow the layers' inputs; it resumes to the bit; ranks and micro-batches train like one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.evaluation.driver import prepare, score
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.gan.stylegan3 import StyleGAN3
from lightning_modules.metrics.evaluator import EvaluationOptions
from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan3.schedule import SynthesisOptions
from tests.lightning_modules.gan.alike import resumed_to_the_bit, trained_alike, two_ranks_alike
from tests.lightning_modules.gan.test_stylegan2 import AUGMENT, BATCH, Data, Rows, small
from tests.trainers import bare_trainer

#: The directions of its waves follow large gradients, which blow rounding errors up.
SMOOTHER = OptimizerOptions(lr=0.1, beta1=0.0, beta2=0.99, eps=0.1)
NARROW: dict[str, Any] = {"layers": 4, "channel_base": 64, "channel_max": 8, "margin": 2}


def narrow(*, checkpointing: bool = False, **options: Any) -> StyleGAN3:
    synthesis = SynthesisOptions(**NARROW, magnitude_half_life_kimg=0.02, gradient_checkpointing=checkpointing)
    chosen: dict[str, Any] = {
        "mapping": MappingOptions(layers=2, w_dim=12, w_avg_beta=0.9),
        "synthesis": synthesis,
        "path_length_weight": 0.0,
        "style_mixing": 0.0,
        "generator_optimizer": SMOOTHER,
    }
    found = small(StyleGAN3, **{**chosen, **options})
    assert isinstance(found, StyleGAN3)
    return found


def test_magnitudes_follow_what_the_discriminator_has_seen(tmp_path: Path) -> None:
    module = narrow()
    seen: list[torch.Tensor] = []
    whole = module.generator.synthesis.measured

    def noting(*arguments: Any) -> Any:
        images, magnitudes = whole(*arguments)
        seen.append(magnitudes)
        return images, magnitudes

    module.generator.synthesis.measured = noting  # type: ignore[method-assign]
    bare_trainer(tmp_path).fit(module, Rows(0, 2))
    # The generator's update, the discriminator's, twice; the first half-life is of 20 images.
    assert len(seen) == 4
    kept = 0.5 ** (BATCH / 20)
    expected = kept * (kept * torch.ones(5) + (1 - kept) * seen[1]) + (1 - kept) * seen[3]
    torch.testing.assert_close(module.generator.synthesis.magnitudes, expected)


def test_magnitudes_keep_their_precision_in_bf16() -> None:
    module = narrow().to(torch.bfloat16)
    assert module.generator.synthesis.magnitudes.dtype == torch.float32
    assert module.generator.mapping.w_avg.dtype == torch.float32
    assert module.generator.synthesis.layers[0].weight.dtype == torch.bfloat16
    assert module.generate(torch.arange(2), seed=0).dtype == torch.float32


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {"augmentation": AUGMENT, "blur_sigma": 2.0, "blur_kimg": 0.04}
    whole = resumed_to_the_bit(tmp_path, lambda: narrow(**options), Rows, until=6, batch_size=BATCH)
    # The present magnitudes are those of the average, too.
    average = whole.averages["ema"].values
    assert torch.equal(average["generator.synthesis.magnitudes"], whole.generator.synthesis.magnitudes)


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    two_ranks_alike(tmp_path, narrow, Data(3))


@pytest.mark.parametrize("other", [{"micro_batches": 2}, {"checkpointing": True}], ids=str)
def test_micro_batches_and_checkpointing_train_like_the_whole(tmp_path: Path, other: dict[str, Any]) -> None:
    # Groups of the minibatch deviation are of a micro-batch.
    one, two = narrow(features=0), narrow(features=0, **other)
    trained_alike(tmp_path, one, two, Data(3))


def test_the_blur_fades_away() -> None:
    module = narrow(blur_sigma=4.0, blur_kimg=1.0)
    images = torch.randn(2, 1, 16, 16)
    spreads = []
    for seen in (0, 500, 1000, 5000):
        module.images_seen = seen
        spreads.append(module.shown(images).std().item())
    assert spreads[0] < spreads[1] < spreads[2] == spreads[3] == images.std().item()


def test_equivariance_is_measured_of_generated_images() -> None:
    options = EvaluationOptions(metrics=("eqt", "eqr"), num_samples=4, batch_size=3)
    evaluator = narrow().eval().evaluator(options)
    assert evaluator is not None
    assert dict(evaluator.names) == {"eqt": "max", "eqr": "max"}
    assert not evaluator.weights
    prepare(evaluator, None, torch.device("cpu"))
    found = score(evaluator, None, torch.device("cpu"))
    assert 10 < found["eqr"] < found["eqt"]
    with pytest.raises(ValueError, match="eqt cannot be measured of a StyleGAN2"):
        small().evaluator(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 8}, "resolution is 8; StyleGAN3's networks need a power of two, 16 or more"),
        ({"synthesis": SynthesisOptions(layers=2)}, "synthesis.critical_layers is 2; it must be less than"),
        ({"blur_sigma": -1.0}, "blur_sigma"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        narrow(**options)
