"""The metrics on real CIFAR-10 images through the real networks, against torch-fidelity's network and scipy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from lightning_modules.metrics.features import FeatureExtractor, build_extractor
from lightning_modules.metrics.generation import GenerationMetrics, reference_statistics
from lightning_modules.metrics.kernel import squared_mmd
from tests.lightning_modules.metrics.metrics_reference import (
    cifar10,
    features_in_batches,
    reference_inception,
    scipy_frechet,
)

COUNT = 200


def evaluate(extractor: FeatureExtractor, real: Tensor, fake: Tensor) -> dict[str, float]:
    reference = reference_statistics(real.split(20), extractor, num_samples=len(real))
    metrics = GenerationMetrics(extractor, reference, ["fid", "kid"], num_samples=len(fake))
    for index in torch.arange(len(fake)).split(20):
        metrics.update(fake[index], index)
    return metrics.compute()


@pytest.mark.proof
def test_fid_and_kid_equal_torch_fidelity_with_scipy() -> None:
    weights = fetch("inception", progress=False)
    real, fake = cifar10("train", COUNT), cifar10("test", COUNT)
    network = reference_inception(weights)
    features = [features_in_batches(network, images) for images in (real, fake)]
    results = evaluate(build_extractor("inception-tf", weights), real, fake)
    assert results["fid/inception-tf"] == pytest.approx(scipy_frechet(*features), rel=1e-3)
    assert results["kid/inception-tf"] == pytest.approx(
        squared_mmd(*features).item(), abs=results["kid_std/inception-tf"]
    )


@pytest.mark.network
def test_mobilenet_fid_tells_far_from_near() -> None:
    """Train against test is near; train against its own negatives is far."""
    extractor = build_extractor("mobilenet_v2", fetch("mobilenet_v2", progress=False))
    real, near = cifar10("train", 150), cifar10("test", 150)
    fid_near, fid_far = (evaluate(extractor, real, fake)["fid/mobilenet_v2"] for fake in (near, 255 - near))
    assert fid_far > 1.3 * fid_near
