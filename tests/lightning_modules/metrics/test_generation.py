from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_modules.metrics import evaluator, specs
from lightning_modules.metrics.evaluator import EvaluationOptions
from lightning_modules.metrics.features import FeatureExtractor
from lightning_modules.metrics.generation import GenerationMetrics, reference_statistics
from lightning_modules.metrics.kernel import squared_mmd
from lightning_modules.metrics.prdc import prdc, precision_recall
from tests.lightning_modules.metrics.metrics_reference import scipy_frechet

METRICS = ("fid", "kid", "is", "prdc", "pr")
KEYS = {"fid", "kid", "kid_std", "is", "is_std", "precision", "recall", "density", "coverage"}
KEYS |= {"precision_k3", "recall_k3"}


class _TinyNetwork(nn.Module):
    """Fixed random features: fast, and its statistics are no less real."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.project = nn.Parameter(torch.randn(3 * 8 * 8, 24, generator=generator) / 8)
        self.classify = nn.Parameter(torch.randn(24, 10, generator=generator))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pool = (x.flatten(1) @ self.project).relu()
        return pool, pool @ self.classify


def tiny_extractor(name: str = "mobilenet_v2", num_classes: int = 10) -> FeatureExtractor:
    return FeatureExtractor(
        name, _TinyNetwork(), lambda images: images / 128 - 1, feature_dim=24, num_classes=num_classes
    )


def images(count: int, seed: int, darker: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256 - darker, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)


def evaluate(real: list[Tensor], fake: Tensor, shares: list[Tensor], total_real: int) -> dict[str, float]:
    """All metrics of ``fake``, whose samples come in the batches of indices ``shares``."""
    extractor = tiny_extractor()
    reference = reference_statistics(real, extractor, num_samples=total_real, cap=80)
    metrics = GenerationMetrics(
        extractor, reference, METRICS, num_samples=len(fake), cap=60, kid_subsets=20, kid_subset_size=20, splits=5
    )
    for _ in range(2):  # the second round shows that reset forgets the first
        metrics.reset()
        for index in shares:
            metrics.update(fake[index], index)
        results = metrics.compute()
    return results


def test_one_pass_equals_each_metric_alone() -> None:
    real, fake = images(150, 1), images(100, 2, darker=60)
    results = evaluate(list(real.split(32)), fake, list(torch.arange(100).split(16)), 150)
    assert set(results) == {f"{key}/mobilenet_v2" for key in KEYS}
    features = [tiny_extractor()(x).pool for x in (real, fake)]
    assert results["fid/mobilenet_v2"] == pytest.approx(scipy_frechet(*features), rel=1e-5)

    kept_real = features[0][[-(-slot * 150 // 80) for slot in range(80)]]
    kept_fake = features[1][[-(-slot * 100 // 60) for slot in range(60)]]
    compared = prdc(kept_real, kept_fake)
    expected = {key: getattr(compared, key) for key in ("precision", "recall", "density", "coverage")}
    assert {key: results[f"{key}/mobilenet_v2"] for key in expected} == pytest.approx(expected)
    both = results["precision_k3/mobilenet_v2"], results["recall_k3/mobilenet_v2"]
    assert both == pytest.approx(precision_recall(kept_real, kept_fake, nearest_k=3))
    mmd = squared_mmd(kept_real[:60], kept_fake).item()
    assert results["kid/mobilenet_v2"] == pytest.approx(mmd, abs=results["kid_std/mobilenet_v2"])


def test_mixed_precision_of_the_training_changes_no_number() -> None:
    real, fake = images(150, 1), images(100, 2, darker=60)
    expected = evaluate([real], fake, [torch.arange(100)], 150)
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate([real], fake, [torch.arange(100)], 150) == expected


def test_metrics_of_other_packages_are_in_full_precision_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Product(Metric):
        def __init__(self) -> None:
            super().__init__()
            self.add_state("rows", default=torch.zeros(2, 3), dist_reduce_fx="sum")

        def update(self, images: Tensor, index: Tensor) -> None:
            self.rows += images.float().mean((2, 3)) @ torch.eye(3)

        def compute(self) -> Tensor:
            return (self.rows @ self.rows.T).sum()

    quantity = specs.Quantity("product", "Product", "min")
    spec = specs.MetricSpec("product", "", ("generation",), (quantity,), make=Product)
    monkeypatch.setattr(specs, "table", lambda: {"product": spec})
    measuring = evaluator.TableEvaluator("generation", EvaluationOptions(metrics=("product",)), "a GAN")
    measuring.load({}, torch.device("cpu"))
    found = []
    for mixed in (False, True):
        measuring.reset()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            measuring.update_foreign(images(2, 1), torch.arange(2))
            found.append(measuring.compute()["product"])
    assert found[0] == found[1]


def test_settings_tell_the_samples_that_prdc_cannot_hold() -> None:
    real = images(20, 1)
    reference = reference_statistics([real], tiny_extractor(), num_samples=20, sync=False)
    metrics = GenerationMetrics(tiny_extractor(), reference, ["prdc"], num_samples=8)
    for fake, copies in ((real[:1].repeat(8, 1, 1, 1), {"generated_copies": 8}), (real[:8], {})):
        metrics.reset()
        metrics.update(fake, torch.arange(8))
        metrics.compute()
        assert metrics.settings["prdc"] == {"nearest_k": 5, "real": 20, "generated": 8, **copies}


@pytest.mark.parametrize("count", [20, 60])
def test_frechet_term_with_fewer_and_more_samples_than_dimensions(count: int) -> None:
    real, fake = images(150, 1), images(count, 2, darker=60)
    extractor = tiny_extractor()
    reference = reference_statistics([real], extractor, num_samples=150, cap=0)
    metrics = GenerationMetrics(extractor, reference, num_samples=count)
    metrics.update(fake, torch.arange(count))
    expected = scipy_frechet(extractor(real).pool, extractor(fake).pool)
    assert metrics.compute()["fid/mobilenet_v2"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["fid", "kid", "prdc"])
def test_the_table_knows_how_many_pictures_are_enough(name: str) -> None:
    least, extractor = specs.find(name).least, tiny_extractor()

    def measured(real: int, made: int) -> dict[str, float]:
        reference = reference_statistics([images(real, 1)], extractor, num_samples=real)
        metrics = GenerationMetrics(extractor, reference, (name,), num_samples=made)
        metrics.update(images(made, 2), torch.arange(made))
        return metrics.compute()

    assert all(math.isfinite(value) for value in measured(least, least).values())
    for real, made in ((least - 1, 50), (50, least - 1)):
        with pytest.raises(ValueError, match="need"):
            measured(real, made)


def test_the_inception_score_needs_no_reference() -> None:
    extractor, made = tiny_extractor(), images(40, 2)
    reference = reference_statistics([images(50, 1)], extractor, num_samples=50)
    free, compared = (GenerationMetrics(extractor, given, ("is",), num_samples=40) for given in (None, reference))
    for metrics in (free, compared):
        metrics.update(made, torch.arange(40))
    assert free.compute() == compared.compute()
    assert set(free.compute()) == {"is/mobilenet_v2", "is_std/mobilenet_v2"}
    with pytest.raises(ValueError, match="kid, prdc compare with real images"):
        GenerationMetrics(extractor, None, ("is", "kid", "prdc"), num_samples=40)


# One rank has most of the samples, or all of them, and the ranks' batches differ in size and number.
SHARES = [
    [list(torch.arange(0, 70).split(32)), list(torch.arange(70, 100).split(7))],
    [list(torch.arange(100).split(50)), []],
]


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        real, fake = images(150, 1), images(100, 2, darker=60)
        results = [evaluate([real[rank::2]], fake, shares[rank], 150) for shares in SHARES]
        torch.save(results, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.network
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    mp.spawn(_rank, (tmp_path,), nprocs=2)
    expected = evaluate([images(150, 1)], images(100, 2, darker=60), [torch.arange(100)], 150)
    for rank in range(2):
        for results in torch.load(tmp_path / f"{rank}.pt"):
            assert results == pytest.approx(expected, rel=1e-6)


def test_bad_combinations_are_refused() -> None:
    extractor = tiny_extractor()
    reference = reference_statistics([images(50, 1)], extractor, num_samples=50, cap=0)
    with pytest.raises(ValueError, match="unknown metric lpips"):
        GenerationMetrics(extractor, reference, ["lpips"], num_samples=10)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="cap > 0"):
        GenerationMetrics(extractor, reference, ["kid"], num_samples=10)
    with pytest.raises(ValueError, match="different extractors"):
        GenerationMetrics(tiny_extractor("inception-tf"), reference, num_samples=10)
    with pytest.raises(ValueError, match="no classifier"):
        GenerationMetrics(tiny_extractor(num_classes=0), reference, ["is"], num_samples=10)


def test_a_missing_classifier_is_known_before_any_feature_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "build_extractor", lambda name, file: tiny_extractor(name, num_classes=0))
    files = {"inception": Path("nowhere")}
    of_sets = EvaluationOptions(metrics=("fid", "is"))
    with pytest.raises(ValueError, match="inception-tf hold no classifier, which the Inception Score needs"):
        evaluator.TableEvaluator("generation", of_sets, "a GAN").load(files, torch.device("cpu"))
    evaluator.TableEvaluator("generation", EvaluationOptions(metrics=("fid",)), "a GAN").load(
        files, torch.device("cpu")
    )
