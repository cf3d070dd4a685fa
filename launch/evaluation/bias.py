"""Which groups a run makes more often, or less, than its data has them; and how well each class is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from launch.evaluation.fitting import Progress, fit_classifier, no_progress
from launch.evaluation.pictures import samples_of
from launch.evaluation.shares import Share, newcombe
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.frechet import frechet_distance_to_features
from lightning_modules.metrics.prdc import precision_recall
from lightning_modules.networks.classifier import Classifier, ClassifierOptions, levels_of, probabilities
from lightning_modules.pictures.scores import Scorer

#: Into so many groups of the same size the training pictures are cut by a score, where it takes enough values.
GROUPS = 5
#: The chance that any group is called another share where all are alike: divided among the groups (Bonferroni).
CHANCE = 0.05
#: The fewest pictures of a class that are measured.
LEAST = 20


@dataclass(frozen=True)
class Group:
    """A class, or the pictures whose score lies between two values.

    Args:
        name: of the class; or the values: ``0.1 to 0.25``.
        data, samples: its shares of the held-out pictures and of the samples, both told in the same way.
        low, high: the interval of their difference, samples minus data (Newcombe 1998), wide enough that all groups'
            intervals together hold with 95 %.
        verdict: ``more`` or ``less``, where the interval leaves 0 out; else ``alike``.
    """

    name: str
    data: Share
    samples: Share
    low: float
    high: float
    verdict: Literal["more", "less", "alike"]


@dataclass(frozen=True)
class OfClass:
    """How well one class is made, by as many training pictures, samples and held-out pictures.

    Args:
        name: of the class.
        pictures: number of each; below ``LEAST`` nothing is measured.
        fid: of samples against training pictures. Of few pictures it is large: compare it with the next.
        held_out_fid: of held-out pictures against the same training pictures.
        recall, held_out_recall: the share of training pictures that are like samples, or like held-out pictures.
        told: share of the samples that the classifier takes for this class.
    """

    name: str
    pictures: int
    fid: float | None = None
    held_out_fid: float | None = None
    recall: float | None = None
    held_out_recall: float | None = None
    told: Share | None = None


def groups(names: Sequence[str], data: Tensor, samples: Tensor) -> list[Group]:
    """Compares how often each group occurs.

    Args:
        names: of the groups.
        data, samples: the group of each picture, int64 [N] and [M].
    """
    found = []
    level = 1 - CHANCE / len(names)
    for number, name in enumerate(names):
        of_data, of_samples = ((int((each == number).sum()), len(each)) for each in (data, samples))
        low, high = newcombe(of_samples, of_data, level)
        verdict: Literal["more", "less", "alike"] = "more" if low > 0 else "less" if high < 0 else "alike"
        found.append(Group(name, Share.of(*of_data), Share.of(*of_samples), low, high, verdict))
    return found


def score_groups(scorer: Scorer, training: Tensor, held_out: Tensor, samples: Tensor) -> list[Group]:
    """Groups of a score, cut where the training pictures fall into fifths; of fewer values fewer groups.

    Args:
        scorer: of pictures in [-1, 1].
        training, held_out, samples: uint8 [N, C, H, W].

    Raises:
        ValueError: all training pictures have one score, or a score is no number.
    """
    of_training, *others = (
        torch.cat([scorer(to_float(part)).float().cpu() for part in images.split(256)])
        for images in (training, held_out, samples)
    )
    if not all(bool(scores.isfinite().all()) for scores in (of_training, *others)):
        raise ValueError("some of its scores are no numbers")
    cuts = of_training.quantile(torch.arange(1, GROUPS) / GROUPS).unique()
    # A score of 0 or 1 is cut above 0.
    cuts = cuts[cuts > of_training.amin()]
    if not len(cuts):
        raise ValueError(f"nearly all training pictures have the score {of_training[0]:g}: nothing to compare")
    ends = [f"{cut:.3g}" for cut in cuts.tolist()]
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    names = [f"below {ends[0]}", *between, f"{ends[-1]} or more"]
    return groups(names, *(torch.bucketize(scores, cuts, right=True) for scores in others))


def class_of(
    pictures: Tensor,
    labels: Tensor,
    classes: int,
    *,
    kimg: float,
    seed: int,
    width: int = 32,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Classifier:
    """A classifier of the data's classes, trained on those of the pictures that have a label."""
    known = labels >= 0
    options = ClassifierOptions(pictures.shape[1], classes, width, levels=levels_of(pictures.shape[2]))
    return fit_classifier(
        options, pictures[known], labels[known], kimg=kimg, seed=seed, device=device, progress=progress
    )


def told(network: Classifier, pictures: Tensor) -> Tensor:
    """The class that a classifier takes each picture for, int64 [N]."""
    return probabilities(network, pictures).argmax(1)


@torch.no_grad()
def of_classes(
    module: ImageFamily,
    data: ShardData,
    split: str,
    network: Classifier,
    features: Callable[[Tensor], Tensor],
    *,
    num: int,
    seed: int,
    progress: Progress = no_progress,
) -> list[OfClass]:
    """FID and recall of each class of a conditional family, beside those of held-out pictures.

    Args:
        module: the family.
        data: what it was trained on.
        split: the held-out one.
        network: a classifier of the data's classes.
        features: uint8 pictures [N, C, H, W] to float32 [N, D].
        num: pictures of each class, at most as many as both splits have.
        seed: of the samples.
        progress: see ``Progress``.
    """
    found = []
    classes = data.manifest.classes
    for label in progress(range(len(classes)), len(classes)):
        count = min(num, data.number_of("train", label), data.number_of(split, label))
        if count < LEAST:
            found.append(OfClass(classes[label], count))
            continue
        real, held_out = (of_class(data, each, label, count) for each in ("train", split))
        samples = samples_of(module, torch.arange(count), seed=seed, labels=torch.full((count,), label))
        keys, of_held_out, of_samples = (features(images) for images in (real, held_out, samples))
        mean, cov = keys.double().mean(0), keys.double().T.cov()
        fid, held_out_fid = (float(frechet_distance_to_features(mean, cov, each)) for each in (of_samples, of_held_out))
        recall, held_out_recall = (precision_recall(keys, each)[1] for each in (of_samples, of_held_out))
        right = Share.of(int((told(network, samples) == label).sum()), count)
        found.append(OfClass(classes[label], count, fid, held_out_fid, recall, held_out_recall, right))
    return found


def of_class(data: ShardData, split: str, label: int, count: int) -> Tensor:
    """Pictures of one class, evenly spaced over a split: uint8 [count, C, H, W]."""
    batches = data.reference_batches(split, rank=0, world_size=1, batch_size=256, limit=count, label=label)
    return torch.cat(list(batches))


def plain(found: Sequence[Group] | Sequence[OfClass]) -> list[dict[str, object]]:
    """As plain data."""
    return [asdict(each) for each in found]
