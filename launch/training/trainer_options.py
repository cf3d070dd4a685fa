"""Options of Lightning's Trainer that gesso's trainings cannot honour: each is refused in a line that names ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gesso.common.text import one_line

#: Option -> the value that leaves it alone, and what to use instead.
REPLACED: Mapping[str, tuple[object, str]] = {
    "gradient_clip_val": (None, "every network's gradients are clipped by themselves: use model.gradient_clip_norm"),
    "gradient_clip_algorithm": (None, "gradients are clipped by their norm: use model.gradient_clip_norm"),
    "accumulate_grad_batches": (1, "gradients add up inside of a step: use model.micro_batches"),
    "barebones": (False, "a run without its callbacks and logs is none; --run.wandb disabled leaves W&B out"),
    "fast_dev_run": (False, "a short training is one like any other: use run.kimg"),
    "val_check_interval": (None, "every interval counts images: use evaluation.every_kimg"),
    "check_val_every_n_epoch": (1, "every interval counts images: use evaluation.every_kimg"),
    "log_every_n_steps": (None, "every interval counts images: use run.log_every_kimg"),
    "default_root_dir": (None, "runs lie in a folder of their own: use run.root"),
    "use_distributed_sampler": (False, "the stream itself gives every rank its part"),
    "reload_dataloaders_every_n_epochs": (0, "the stream has no epochs of a loader"),
}
STRATEGIES = ("auto", "ddp", "zero")


def check_trainer_options(options: Mapping[str, object]) -> None:
    """Checks the options of the Trainer that a recipe or a command line gives.

    Raises:
        ValueError: one cannot be honoured; names it, and gesso's own option for the same.
    """
    for name, (neutral, instead) in REPLACED.items():
        value = options.get(name, neutral)
        if value is not None and value != neutral:
            raise ValueError(f"trainer.{name} {value}: {instead}")
    if str(options.get("devices")).strip() in ("0", "[]", ""):
        raise ValueError(f"trainer.devices {options['devices']}: a training has 1 rank or more; auto takes all GPUs")
    strategy = options.get("strategy", "auto")
    if isinstance(strategy, str) and not strategy.startswith(STRATEGIES):
        raise ValueError(
            f"trainer.strategy {strategy}: choose auto, ddp, zero1, zero2, zero3, zero2_offload or zero3_offload"
        )


@contextlib.contextmanager
def naming_the_trainer() -> Iterator[None]:
    """Context manager: what Lightning refuses becomes a ValueError in one line.

    Raises:
        ValueError: a machine without the GPUs that were asked for, options that contradict each other ...
    """
    try:
        yield
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"trainer: {one_line(error)}") from error
