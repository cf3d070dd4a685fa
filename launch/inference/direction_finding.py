"""Finds directions in a trained generator's space W."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from launch.inference.w_editing import pictures_of
from launch.inference.w_files import Directions
from lightning_modules.kinds.w_space import WSpace
from lightning_modules.latents.directions import Moments, correlation, ganspace, interfacegan, sefa, without
from lightning_modules.pictures.scores import Scorer

#: Called with the number of samples done.
Progress = Callable[[int], None]
#: Share of the samples that a scorer's direction is found with; the others say how well it does.
TRAINING = 0.7


@dataclass(frozen=True)
class Samples:
    """The samples of a generator that directions are found with.

    Args:
        count: how many.
        seed: of their sequence.
        label: int64 [1]: their class; None: all classes.
        batch_size: made at a time.
    """

    count: int = 10_000
    seed: int = 0
    label: Tensor | None = None
    batch_size: int = 64

    @torch.no_grad()
    def of(self, space: WSpace) -> Iterator[Tensor]:
        """Their w, [n, w_dim] for each batch."""
        for index in torch.arange(self.count).split(self.batch_size):
            labels = None if self.label is None else self.label.expand(len(index))
            yield space.sampled(index, seed=self.seed, labels=labels)


def closed_form(
    space: WSpace,
    method: str,
    samples: Samples,
    *,
    count: int,
    layers: tuple[int, int] | None = None,
    origin: str = "?",
) -> Directions:
    """Directions that need no pictures: ``sefa`` (of the layers' weights) or ``pca`` (GANSpace, of w).

    Args:
        space: of the generator.
        method: ``sefa`` or ``pca``.
        samples: for the spread of w, and PCA itself.
        count: of directions.
        layers: the first and last layer that they are for, and that SeFa looks at; None: all.
        origin: see ``Directions``.

    Raises:
        ValueError: more directions than w has dimensions.
    """
    moments = Moments(space.w_dim)
    for w in samples.of(space):
        moments.update(w)
    if method == "sefa":
        first, last = layers or (0, space.num_ws - 1)
        axes = sefa(space.style_weights()[first : last + 1], count)
    else:
        axes = ganspace(moments, count)
    names = tuple(f"{method}-{number}" for number in range(count))
    spreads = moments.spread(axes.vectors)
    return Directions(
        axes.vectors.float(), spreads.float(), axes.values.float(), names, method, layers, space.checksum(), origin
    )


def scored(
    space: WSpace,
    scorers: dict[str, Scorer],
    samples: Samples,
    *,
    share: float = 0.2,
    others: Sequence[Tensor] = (),
    apart: bool = False,
    layers: tuple[int, int] | None = None,
    origin: str = "?",
    progress: Progress = lambda done: None,
) -> Directions:
    """One direction for each scorer, along which its score rises: InterFaceGAN.

    Args:
        space: of the generator.
        scorers: by name.
        samples: to score.
        share: of the samples that count as high, and as low.
        others: directions [K, w_dim] that are left out of each: what they stand for changes less.
        apart: leave each scorer's direction out of the others', too.
        layers: the first and last layer that they are for; None: all.
        origin: see ``Directions``.
        progress: called after each batch.

    Returns:
        The directions; values are correlations of score and w along each, on samples that it was not found with.

    Raises:
        ValueError: too few samples, a scorer that gives something else than a number for each, or always the same; or
            nothing is left of a direction.
    """
    moments = Moments(space.w_dim)
    every, scores = [], []
    for w in samples.of(space):
        moments.update(w)
        with torch.no_grad():
            images = pictures_of(space, space.layers(w))
        scores.append([_scores(name, scorer, images) for name, scorer in scorers.items()])
        every.append(w.double().cpu())
        progress(sum(map(len, every)))
    ws = torch.cat(every)
    training = int(TRAINING * len(ws))
    columns = [torch.cat([row[number] for row in scores]) for number in range(len(scorers))]
    normals = []
    for name, column in zip(scorers, columns, strict=True):
        try:
            normals.append(interfacegan(ws[:training], column[:training], share=share))
        except ValueError as error:
            raise ValueError(f"scorer {name}: {error}") from error
    found = []
    for number, normal in enumerate(normals):
        left_out = [*others, *(other[None] for place, other in enumerate(normals) if apart and place != number)]
        found.append(without(normal, torch.cat([one.double() for one in left_out])) if left_out else normal)
    vectors = torch.stack(found)
    values = [
        correlation(ws[training:] @ vector, column[training:]) for vector, column in zip(vectors, columns, strict=True)
    ]
    spreads = moments.spread(vectors).float()
    return Directions(
        vectors.float(), spreads, torch.tensor(values), tuple(scorers), "svm", layers, space.checksum(), origin
    )


def _scores(name: str, scorer: Scorer, images: Tensor) -> Tensor:
    found = scorer(images)
    if not isinstance(found, Tensor) or found.shape != (len(images),):
        kind = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"scorer {name}: gave {kind} for {len(images)} pictures; it must give a number for each")
    return found.detach().double().cpu()
