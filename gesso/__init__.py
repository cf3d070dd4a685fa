"""gesso from Python: the same trainings, checkpoints and numbers as on the command line.

    import gesso

    run = gesso.train("mnist-dcgan", {"run.kimg": 20})
    digits = gesso.load(run).generate(16, seed=0)          # [16, 1, 32, 32] in [-1, 1]
    gesso.grid(digits).save("digits.png")
    gesso.evaluate(run, metrics=["fid"], extractor="mobilenet_v2", num_samples=1000)
    for batch in gesso.stream("shards/mnist", batch_size=64):
        ...

Importing this imports nothing else; each function imports what it needs when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import lightning as L
    from PIL.Image import Image
    from torch import Tensor

    from datamodules.streaming.plain import Stream
    from datamodules.streaming.transforms import Crop
    from launch.inference.model import Model
    from launch.inference.pictures import Picture
    from launch.training.layers import Recipe
    from launch.training.outcome import Run
    from lightning_modules.metrics.specs import ExtractorName

__all__ = ["evaluate", "grid", "load", "stream", "stylize", "train"]

PathLike = str | os.PathLike[str]


def train(
    recipe: Recipe | Sequence[Recipe] = (),
    overrides: Mapping[str, object] | None = None,
    *,
    resume: PathLike | None = None,
    checkpoint: PathLike | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> Run:
    """Trains a recipe, as ``gesso fit`` does, and returns when it has ended.

    Global random generators, Lightning's variables of the environment and filters of warnings are as before then.

    Args:
        recipe: a packaged recipe's name (``gesso recipes``), a YAML file, a mapping, or several of these.
        overrides: option -> value, by the options' names with dots; a mapping changes the options that it names.
        resume: a run to go on with, instead of a recipe.
        checkpoint: a checkpoint, or a run, whose state a new run begins with.
        callbacks: Lightning's.

    Returns:
        The run: its folder ``path``, ``state``, the last ``metrics``, ``images_seen``.

    Raises:
        ValueError, FileNotFoundError: what was asked for, in one line; nothing was written.

    Example:
        >>> run = gesso.train("mnist-dcgan", {"run.kimg": 20})  # doctest: +SKIP
        >>> gesso.train(resume=run, overrides={"run.kimg": 40}).state  # doctest: +SKIP
        'finished'
    """
    from launch.training.surroundings import untouched_process

    if resume is not None and recipe != ():
        raise ValueError("recipe and resume: a run goes on with its own config; change options of it with overrides")
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise ValueError(f"callbacks are a list of Lightning callbacks, not {callbacks!r}")
    with untouched_process():
        from launch.training.training import Training

        training = Training(recipe, overrides or {}, resume=resume, checkpoint=checkpoint, callbacks=tuple(callbacks))
        return training.fit()


def load(source: PathLike, *, average: bool = True, device: str = "auto") -> Model:
    """The model of a run (its last checkpoint), of a checkpoint or of an exported file, ready to use.

    Args:
        source: run, checkpoint, or what ``gesso checkpoint export`` wrote.
        average: with the moving average of the weights, where there is one.
        device: ``auto``, ``cpu``, ``cuda:1`` ...

    Raises:
        ValueError, FileNotFoundError: there is none, or it is damaged.

    Example:
        >>> gesso.load("runs/mnist-dcgan-20261128").generate(16, seed=0).shape  # doctest: +SKIP
        torch.Size([16, 1, 32, 32])
    """
    from gesso.common.randomness import keeping_generators

    with keeping_generators():
        from launch.inference.model import Model

        return Model.load(source, average=average, device=device)


def stylize(
    content: Picture,
    style: Picture | Sequence[Picture],
    *,
    method: Literal["adain", "gatys"] = "adain",
    weights: Sequence[float] | None = None,
    alpha: float = 1.0,
    size: int | None = None,
    steps: int = 200,
    seed: int = 0,
    device: str = "auto",
) -> Tensor:
    """A picture in the style of others, with published weights; ``load(run).stylize`` does it with your own.

    Args:
        content: a file, a PIL image, or a tensor [3, H, W] or [1, 3, H, W] in [-1, 1].
        style: one such picture, or several.
        method: ``adain`` takes one pass, ``gatys`` optimises the picture itself, which takes minutes.
        weights: how much of each style; None: equally much.
        alpha: from 0 (the content) to 1.
        size: longer side of the result in pixels; None: the content's own.
        steps: of ``gatys``, at the smallest scale.
        seed: of ``gatys``.
        device: ``auto``, ``cpu``, ``cuda:1`` ...

    Returns:
        [1, 3, H, W] in [-1, 1], on the CPU.

    Example:
        >>> gesso.grid(gesso.stylize("boat.jpg", "wave.jpg")).save("boat-wave.png")  # doctest: +SKIP
    """
    from launch.inference.model import stylize_with

    return stylize_with(
        method, content, style, weights=weights, alpha=alpha, size=size, steps=steps, seed=seed, device=device
    )


def evaluate(
    source: PathLike | Iterable[Tensor],
    reference: PathLike | None = None,
    *,
    metrics: str | Sequence[str] | None = None,
    extractor: ExtractorName = "inception-tf",
    num_samples: int | None = None,
    split: str | None = None,
    reference_split: str | None = None,
    reference_samples: int | None = None,
    second: PathLike | None = None,
    direction: str | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "auto",
    sampling: Mapping[str, object] | None = None,
) -> dict[str, float]:
    """FID and the others of images against real ones; names carry the feature network: ``fid/inception-tf``.

    Args:
        source: a run or checkpoint, a shard set, or batches of square images of one size: uint8, or float in
            [-1, 1], NCHW. A run that stylises or translates is measured on held-out pictures.
        reference: the shard set to compare with; of a run that makes pictures of others, that of these; None: the
            run's own.
        metrics: by name, as ``gesso evaluate --help`` lists them: ``fid``, ``prdc``, ``lpips`` ...; None: those that
            it marks.
        extractor: ``inception-tf`` is comparable with papers; ``mobilenet_v2`` is light enough for a CPU.
        num_samples: images to measure; None: 50,000 of a run that generates, 100 of one that stylises, else all.
        split: of a shard set given as ``source`` (None: ``test``), or of the pictures that a run makes others of
            (None: the held-out ones).
        reference_split: of the real pictures to compare with; None: ``train``, as in papers.
        reference_samples: only so many of its images; None: all.
        second: shard set of the styles, or of domain B; None: the run's own.
        direction: of a run that translates: ``b-to-a``; None: its main one.
        batch_size: images at a time.
        seed: which sequence of a run's samples.
        sampling: how a run's samples are made, if not as its recipe says: ``{"sampler": "dpmpp-2m", "steps": 8}``.
        device: ``auto``, ``cpu``, ``cuda:1`` ...

    Raises:
        ValueError, FileNotFoundError: one line.

    Example:
        >>> gesso.evaluate("shards/mnist", "shards/mnist", metrics=["fid"])["fid/inception-tf"]  # doctest: +SKIP
        1.07
    """
    from launch.evaluation.front import evaluate as measure
    from lightning_modules.metrics.evaluator import EvaluationOptions

    options = EvaluationOptions(
        metrics=None if metrics is None else (metrics,) if isinstance(metrics, str) else tuple(metrics),
        extractor=extractor,
        batch_size=batch_size,
        seed=seed,
        reference_samples=reference_samples,
        split=split,
        direction=direction,
        occasion="evaluate",
        option="metrics",
    )
    return measure(
        source,
        reference,
        options,
        second=second,
        num_samples=num_samples,
        reference_split=reference_split,
        device=device,
        sampling=sampling,
    )


def stream(
    shards: PathLike,
    batch_size: int = 64,
    *,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    crop: Crop = "center",
    flip: bool = False,
    seed: int = 0,
    workers: int = 2,
    rank: int = 0,
    world_size: int = 1,
    allow_pipe: bool = False,
) -> Stream:
    """Batches of a shard set for a loop of your own, in an order that can be resumed anywhere.

    Args:
        shards: folder of the shard set.
        batch_size: images of a batch over all ranks.
        split: ``train`` is shuffled and endless; any other one is passed through once.
        size: side of the square images in pixels; None: the shard set's.
        channels: 1 or 3; None: the shard set's.
        crop: of training images: ``center``, ``random``, ``random_resized`` or ``none``.
        flip: mirror half of the training images.
        seed: of order and augmentation.
        workers: that prepare batches ahead.
        rank: of this process.
        world_size: number of processes.
        allow_pipe: let a set's ``pipe:`` shards run their commands on this machine.

    Returns:
        An iterable of batches: ``image`` float32 [n, C, size, size] in [-1, 1], ``label`` int64 [n] (-1: none),
        ``index``, ``position``. Its ``state_dict()`` is its place, and ``load_state_dict`` goes back there.

    Raises:
        ValueError, FileNotFoundError: no such set, or an argument that is none; one line.

    Example:
        >>> batches = gesso.stream("shards/mnist", batch_size=64)  # doctest: +SKIP
        >>> next(iter(batches))["image"].shape  # doctest: +SKIP
        torch.Size([64, 1, 32, 32])
    """
    from datamodules.streaming.plain import Stream

    return Stream(
        shards,
        batch_size,
        split=split,
        size=size,
        channels=channels,
        crop=crop,
        flip=flip,
        seed=seed,
        workers=workers,
        rank=rank,
        world_size=world_size,
        allow_pipe=allow_pipe,
    )


def grid(images: Tensor, columns: int | None = None) -> Image:
    """Images side by side as one PIL image: to look at, or to ``save``.

    Args:
        images: [N, C, H, W], float in [-1, 1] or uint8, with 1 or 3 channels.
        columns: images in a row; None makes the grid about square.

    Example:
        >>> gesso.grid(gesso.load(run).generate(64)).save("samples.png")  # doctest: +SKIP
    """
    from launch.inference.pictures import image_grid, pil_image

    return pil_image(image_grid(images, columns))
