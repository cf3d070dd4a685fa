"""Trains a small classifier of pictures that are all in memory: a measuring device and no model, so without a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.pixels import to_float
from gesso.common.randomness import keeping_generators, mix_seed, permutation
from lightning_modules.networks.classifier import Classifier, ClassifierOptions

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
#: Wraps a loop's steps, whose number it is told, to show how far it is.
Progress = Callable[[Iterable[int], int], Iterable[int]]


def no_progress(steps: Iterable[int], count: int) -> Iterable[int]:
    """Shows nothing."""
    return steps


def fit_classifier(
    options: ClassifierOptions,
    images: Tensor,
    labels: Tensor,
    *,
    kimg: float,
    seed: int,
    change: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> Classifier:
    """A classifier after ``kimg`` thousand pictures by Adam, its learning rate falling to 0 along a cosine.

    Weights, order and changes of pictures are functions of ``seed``; on a CPU the result is the same each time.

    Args:
        options: of the network.
        images: uint8 [N, C, H, W].
        labels: int64 [N] in [0, outputs).
        kimg: length of the training in thousands of pictures.
        seed: of all randomness.
        change: what becomes of each batch, uint8 to uint8, with a generator to draw from.
        device: of the network.
        progress: see ``Progress``.

    Returns:
        The network, in eval mode.
    """
    with keeping_generators():
        torch.manual_seed(mix_seed(seed, 0))
        network = Classifier(options).to(device)
    generator = torch.Generator().manual_seed(mix_seed(seed, 1))
    steps = max(1, round(1000 * kimg / BATCH_SIZE))
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.empty(0, dtype=torch.int64)
    epoch = 0
    for _ in progress(range(steps), steps):
        while len(order) < BATCH_SIZE:
            order = torch.cat([order, torch.from_numpy(permutation(len(images), seed, epoch))])
            epoch += 1
        chosen, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        batch = images[chosen] if change is None else change(images[chosen], generator)
        loss = F.cross_entropy(network(to_float(batch.to(device))), labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
