"""FID, KID, IS, precision, recall, density and coverage of generated images, from one pass through one network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_modules.metrics.features import FeatureExtractor, check_classifier, measuring
from lightning_modules.metrics.frechet import frechet_distance, frechet_distance_to_features
from lightning_modules.metrics.inception_score import InceptionScore
from lightning_modules.metrics.kernel import fitting_subset, kernel_distance
from lightning_modules.metrics.prdc import prdc, precision_recall
from lightning_modules.metrics.specs import OWN, full_names
from lightning_modules.metrics.statistics import FeatureStatistics, StatisticsAccumulator

#: The metrics of the table that are computed here.
COMPUTED = tuple(spec.name for spec in OWN if "generation" in spec.kinds and not spec.abilities)
#: Those that compare features themselves, not their mean and covariance alone.
_OF_FEATURES = {"kid", "prdc", "pr"}
#: Neighbour of ``pr``.
PR_NEAREST = 3


class GenerationMetrics(nn.Module):
    """Compares generated images with a reference set.

    ``update`` on every rank with its own share (of any size, also none), then ``compute`` on every rank: it
    communicates. All ranks get the same result, whatever their number.

    Args:
        extractor: the feature extractor of all metrics.
        reference: statistics of the real images under the same extractor; None: only ``is`` is asked for, which
            compares with none.
        metrics: which of ``COMPUTED``.
        num_samples: number of images over all ranks.
        cap: largest number of generated images for KID and precision/recall, evenly spaced over the indices.
        kid_subsets: number of KID's subsets.
        kid_subset_size: samples in each of them.
        nearest_k: neighbour that sets the radii of precision/recall.
        splits: splits of the Inception Score.

    Raises:
        ValueError: unknown metric, no reference, one of another extractor or without features, no logits for ``is``.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: FeatureStatistics | None,
        metrics: Sequence[str] = ("fid",),
        *,
        num_samples: int,
        cap: int = 10_000,
        kid_subsets: int = 100,
        kid_subset_size: int = 1000,
        nearest_k: int = 5,
        splits: int = 10,
    ) -> None:
        super().__init__()
        _check(extractor, reference, metrics)
        self.extractor = extractor
        self.reference = reference
        self.metrics = tuple(metrics)
        self.kid_subsets = kid_subsets
        self.kid_subset_size = kid_subset_size
        self.nearest_k = nearest_k
        self._copies: dict[str, int] = {}
        if not _OF_FEATURES & set(metrics):
            # With fewer samples than dimensions the Fréchet term from the features themselves is the faster one.
            cap = num_samples if num_samples < extractor.feature_dim else 0
        self.statistics = StatisticsAccumulator(extractor.feature_dim, extractor.name, num_samples=num_samples, cap=cap)
        self.inception_score = (
            InceptionScore(extractor.num_classes, num_samples=num_samples, splits=splits) if "is" in metrics else None
        )

    def update(self, images: Tensor, index: Tensor) -> None:
        """Adds images.

        Args:
            images: uint8 [N, C, H, W] in [0, 255]; N may be 0.
            index: int64 [N] in [0, ``num_samples``); each index comes once over all batches and ranks.
        """
        if len(images) == 0:
            return
        features = self.extractor(images)
        index = index.to(images.device)
        if self.reference is not None:
            self.statistics.update(features.pool, index)
        if self.inception_score is not None:
            self.inception_score.update(features.logits, index)

    def compute(self) -> dict[str, float]:
        """``{"fid/<extractor>": ..., ...}`` over all ranks.

        Keys: ``fid``, ``kid``, ``kid_std``, ``is``, ``is_std``, ``precision``, ``recall``, ``density``, ``coverage``,
        ``precision_k3``, ``recall_k3``, as far as asked for.

        Raises:
            ValueError: too few samples for a metric.
        """
        results = {} if self.reference is None else self._compared(self.reference)
        if self.inception_score is not None:
            results["is"], results["is_std"] = self.inception_score.compute()
        chosen = [spec for spec in OWN if spec.name in self.metrics]
        names = full_names(chosen, self.extractor.name)
        return {name: results[name.partition("/")[0]] for name in names}

    def _compared(self, reference: FeatureStatistics) -> dict[str, float]:
        """The metrics that compare with real images, by the names of their quantities."""
        generated = self.statistics.compute()
        reference = reference.to(generated.mean.device)
        results: dict[str, float] = {}
        with measuring(generated.mean.device):
            if "fid" in self.metrics:
                results["fid"] = _frechet(reference, generated)
            if "kid" in self.metrics:
                assert reference.features is not None
                assert generated.features is not None
                results["kid"], results["kid_std"] = kernel_distance(
                    reference.features,
                    generated.features,
                    subsets=self.kid_subsets,
                    subset_size=self.kid_subset_size,
                )
            if "pr" in self.metrics:
                assert reference.features is not None
                assert generated.features is not None
                both = precision_recall(reference.features, generated.features, nearest_k=PR_NEAREST)
                results["precision_k3"], results["recall_k3"] = both
            if "prdc" in self.metrics:
                assert reference.features is not None
                assert generated.features is not None
                found = prdc(reference.features, generated.features, nearest_k=self.nearest_k)
                results |= found._asdict()
                self._copies = {"real_copies": found.real_copies, "generated_copies": found.generated_copies}
        return results

    @property
    def settings(self) -> dict[str, dict[str, int]]:
        """Settings of each metric that its numbers depend on: KID's subsets and their size, PRDC's neighbour ...

        After ``compute`` also how many samples PRDC's balls cannot hold, where there are any: see ``PRDC``.
        """
        found: dict[str, dict[str, int]] = {}
        reference = None if self.reference is None else self.reference.features
        real, made = 0 if reference is None else len(reference), self.statistics.slots
        if "kid" in self.metrics:
            size = fitting_subset(min(real, made), self.kid_subset_size)
            found["kid"] = {"subsets": self.kid_subsets, "subset_size": size}
        if "prdc" in self.metrics:
            copies = {name: number for name, number in self._copies.items() if number}
            found["prdc"] = {"nearest_k": self.nearest_k, "real": real, "generated": made, **copies}
        if "pr" in self.metrics:
            found["pr"] = {"nearest_k": PR_NEAREST, "real": real, "generated": made}
        if self.inception_score is not None:
            found["is"] = {"splits": self.inception_score.splits}
        return found

    def reset(self) -> None:
        """Removes all images, keeps the reference."""
        self._copies = {}
        self.statistics.reset()
        if self.inception_score is not None:
            self.inception_score.reset()


def reference_statistics(
    batches: Iterable[Tensor],
    extractor: FeatureExtractor,
    *,
    num_samples: int,
    cap: int = 10_000,
    sync: bool = True,
    origin: Mapping[str, str] | None = None,
) -> FeatureStatistics:
    """Computes the feature statistics of a data set in one pass.

    Args:
        batches: uint8 [N, C, H, W] in [0, 255]; this rank's share of the data set, each image on one rank only.
        extractor: the feature extractor, on the device to use.
        num_samples: size of the data set, over all ranks.
        cap: number of features to keep for KID and precision/recall.
        sync: sum over all ranks, so that every rank gets the same statistics.
        origin: description of the data set, stored in the statistics.

    Raises:
        ValueError: fewer than 2 images.
    """
    device = next(extractor.parameters()).device
    accumulator = StatisticsAccumulator(extractor.feature_dim, extractor.name, num_samples=num_samples, cap=cap)
    accumulator = accumulator.to(device)
    accumulator.sync_on_compute = sync
    rank, world = (dist.get_rank(), dist.get_world_size()) if sync and dist.is_initialized() else (0, 1)
    seen = 0
    for images in batches:
        index = torch.arange(seen, seen + len(images), device=device) * world + rank
        accumulator.update(extractor(images.to(device)).pool, index)
        seen += len(images)
    return accumulator.compute()._replace(origin=dict(origin or {}))


def _check(extractor: FeatureExtractor, reference: FeatureStatistics | None, metrics: Sequence[str]) -> None:
    if unknown := set(metrics) - set(COMPUTED):
        raise ValueError(f"unknown metric {', '.join(sorted(unknown))}; there are {', '.join(COMPUTED)}")
    if reference is None and (comparing := [spec.name for spec in OWN if spec.least and spec.name in metrics]):
        raise ValueError(f"{', '.join(comparing)} compare with real images: give their statistics")
    if reference is not None and reference.extractor != extractor.name:
        raise ValueError(
            f"the reference statistics are of {reference.extractor}, the metrics want {extractor.name}: "
            "numbers of different extractors cannot be compared"
        )
    if reference is not None and reference.features is None and _OF_FEATURES & set(metrics):
        raise ValueError("KID and precision/recall need reference statistics with features; compute them with cap > 0")
    check_classifier(extractor, metrics)


def _frechet(reference: FeatureStatistics, generated: FeatureStatistics) -> float:
    features = generated.features
    if features is not None and len(features) == generated.num_samples < len(generated.mean):
        return frechet_distance_to_features(reference.mean, reference.cov, features).item()
    return frechet_distance(reference.mean, reference.cov, generated.mean, generated.cov).item()
