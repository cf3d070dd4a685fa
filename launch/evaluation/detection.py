"""Can a run's samples be told from its data? Trains a detector, and tries it on pictures that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from datamodules.shards import ShardData
from gesso.common.pixels import to_float
from launch.evaluation.fitting import Progress, fit_classifier, no_progress
from launch.evaluation.memorisation import compared_split
from launch.evaluation.pictures import labelled_pictures, samples_of
from launch.evaluation.shares import Share, wilson
from lightning_modules.core.family import ImageFamily
from lightning_modules.networks.classifier import Classifier, ClassifierOptions, levels_of, probabilities
from lightning_modules.pictures.attacks import ATTACKS, random_attacks

#: What the two outputs of a detector mean.
REAL, MADE = 0, 1
#: Pictures in each row of the sheet.
COLUMNS = 8
#: The fewest pictures to train and to test with.
LEAST = 50
#: Number of the first sample, its labels int64 [N] (-1: none), seed -> that many samples, uint8 [N, C, H, W].
Make = Callable[[int, Tensor, int], Tensor]


@dataclass(frozen=True)
class Accuracy(Share):
    """The share of pictures that were told right: half of them real, half of them made.

    Args:
        made_found: share of the made ones that were found.
        real_kept: share of the real ones that were not called made.
    """

    made_found: float
    real_kept: float


@dataclass(frozen=True)
class DetectorOptions:
    """How a detector is trained.

    Args:
        training: number of real and of made pictures to train with.
        test: number of each to test with.
        kimg: length of the training in thousands of pictures.
        npr: look at the relations of neighbouring pixels alone: ``pixel_relations``.
        attacks: put pictures through JPEG, blur and another size in training.
        seed: of samples and training.
        width: of the network: ``ClassifierOptions``.
    """

    training: int = 10_000
    test: int = 2000
    kimg: float = 40.0
    npr: bool = False
    attacks: bool = True
    seed: int = 0
    width: int = 32


@dataclass(frozen=True)
class Detection:
    """What came out.

    Args:
        network: the detector, see ``REAL`` and ``MADE``.
        accuracy: by what was done to the test's pictures, or by where the made ones came from.
        training, test: numbers of real pictures, and of made ones.
        sheet: [2 COLUMNS, C, H, W] in [-1, 1]: the samples that look most real to the detector, then the real pictures
            that look most made.
        options: as they were asked for.
    """

    network: Classifier
    accuracy: Mapping[str, Accuracy]
    training: int
    test: int
    sheet: Tensor
    options: DetectorOptions

    def result(self) -> dict[str, object]:
        """All but network and sheet, as plain data."""
        accuracy = {name: asdict(each) for name, each in self.accuracy.items()}
        counts = {"training": self.training, "test": self.test}
        return {"accuracy": accuracy, "options": {**asdict(self.options), **counts}}


def maker(module: ImageFamily) -> Make:
    """Samples of a family; those of a conditional one are of the given classes, where all pictures have one of its."""

    def make(first: int, labels: Tensor, seed: int) -> Tensor:
        classes = module.batch_spec().num_classes
        given = bool(classes) and bool(((labels >= 0) & (labels < classes)).all())
        numbers = torch.arange(first, first + len(labels))
        return samples_of(module, numbers, seed=seed, labels=labels if given else None)

    return make


def detection(
    make: Make,
    data: ShardData,
    options: DetectorOptions,
    *,
    unseen: Mapping[str, Make] = MappingProxyType({}),
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Detection:
    """Trains a detector of samples against training pictures, and tests it on other samples and held-out pictures.

    Samples have the classes of the real pictures, which are mirrored as often as in the generator's training: neither
    gives a sample away. The training's attacks are drawn as Wang et al. 2020 do (arXiv:1912.11035), with a change of
    size beside JPEG and blur.

    Args:
        make: the run's samples.
        data: what the run was trained on.
        options: see ``DetectorOptions``.
        unseen: by name, generators that the detector is tried on as well, without having seen them.
        device: of the detector.
        progress: see ``Progress``.

    Raises:
        ValueError: there are too few real pictures, or no held-out ones; or an unseen generator makes other sizes.
    """
    split = compared_split(data)
    real, labels = _real(data, "train", options.training)
    held_out, held_out_labels = _real(data, split, options.test)
    made = {name: each(0, held_out_labels, options.seed) for name, each in unseen.items()}
    for name, images in made.items():
        if images.shape[1:] != held_out.shape[1:]:
            raise ValueError(f"--unseen {name}: makes pictures of {_size(images)}, the run of {_size(held_out)}")
    samples = make(0, labels, options.seed)
    network = fit_classifier(
        ClassifierOptions(real.shape[1], 2, options.width, options.npr, levels_of(real.shape[2])),
        torch.cat([real, samples]),
        torch.cat([torch.full((len(real),), REAL), torch.full((len(samples),), MADE)]),
        kimg=options.kimg,
        seed=options.seed,
        change=random_attacks if options.attacks else None,
        device=device,
        progress=progress,
    )
    clean = make(len(real), held_out_labels, options.seed)
    made = {f"seed {options.seed + 1}": make(0, held_out_labels, options.seed + 1), **made}
    of_real, of_clean = (probabilities(network, images)[:, MADE] for images in (held_out, clean))
    accuracy = {"clean": _accuracy(of_real, of_clean)}
    for name, attack in ATTACKS.items():
        both = (probabilities(network, attack(images))[:, MADE] for images in (held_out, clean))
        accuracy[name] = _accuracy(*both)
    for name, images in made.items():
        accuracy[name] = _accuracy(of_real, probabilities(network, images)[:, MADE])
    hardest = [clean[of_clean.argsort()[:COLUMNS]], held_out[of_real.argsort(descending=True)[:COLUMNS]]]
    return Detection(network, accuracy, len(real), len(held_out), to_float(torch.cat(hardest)), options)


def _real(data: ShardData, split: str, count: int) -> tuple[Tensor, Tensor]:
    """Pictures of a split, evenly spaced, with their labels; every other one mirrored where training mirrors."""
    if data.number_of(split) < LEAST:
        raise ValueError(f"{data.path}: split {split} has {data.number_of(split)} pictures; a detector needs {LEAST}")
    images, labels = labelled_pictures(data, split, count)
    if data.flip:
        images[1::2] = images[1::2].flip(3)
    return images, labels


def _accuracy(real: Tensor, made: Tensor) -> Accuracy:
    """Out of the probabilities of being made."""
    kept, found = int((real <= 0.5).sum()), int((made > 0.5).sum())
    trials = len(real) + len(made)
    return Accuracy(
        (kept + found) / trials, *wilson(kept + found, trials), made_found=found / len(made), real_kept=kept / len(real)
    )


def _size(images: Tensor) -> str:
    return f"{images.shape[3]} x {images.shape[2]} pixels, {'grey' if images.shape[1] == 1 else 'RGB'}"
