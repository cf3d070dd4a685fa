"""Measures a family's metrics in the validation loop, on every rank."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import lightning as L
import torch

from datamodules.shards import ShardData
from gesso.common.ranges import Count, Positive, Range, Seed
from launch.callbacks.clock import clock_of
from launch.callbacks.lookup import family_of, find, run_folder
from launch.callbacks.progress import Progress
from launch.evaluation import driver
from launch.runs.tracking import rank_zero_print, record
from launch.training.lightning_internals import data_of, run_validation
from launch.training.signals import agreed
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics import specs
from lightning_modules.metrics.diversity import collapse
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator
from lightning_modules.metrics.specs import Direction, ExtractorName

#: Fewer pictures have no statistics worth a name.
Enough = Annotated[int, Range(10)]


class Evaluation(L.Callback):
    """Measures the family's metrics at every validation.

    Args:
        every_kimg: interval of validation in thousands of images.
        metrics: by name (``gesso evaluate --help`` lists them); null: those of the family's kind; empty: none.
        extractor: ``inception-tf`` for numbers comparable with papers, ``inception-clean``, or ``mobilenet_v2``, light
            enough for a machine without a GPU. Its name is in the metrics' names.
        num_samples: number of images to generate (papers use 50,000), or of held-out images to stylise or translate.
        reference_split: split of the data set to compare with; papers use the training set.
        reference_samples: number of its images, where all would take too long on a CPU; None: all, as in papers.
        batch_size: images generated at a time on a rank.
        seed: seed of the sequence of samples.
    """

    def __init__(
        self,
        every_kimg: Positive = 200.0,
        metrics: Sequence[str] | None = None,
        extractor: ExtractorName = "inception-tf",
        num_samples: Enough = 10_000,
        reference_split: str = "train",
        reference_samples: Enough | None = None,
        batch_size: Count = 64,
        seed: Seed = 0,
    ) -> None:
        self.every_kimg = every_kimg
        self.options = EvaluationOptions(
            metrics=None if metrics is None else tuple(specs.find(name).name for name in metrics),
            extractor=extractor,
            num_samples=num_samples,
            batch_size=batch_size,
            seed=seed,
            reference_split=reference_split,
            reference_samples=reference_samples,
        )
        self._evaluator: Evaluator | None = None
        #: Images seen at the last completed validation.
        self._validated_at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"validated_at": self._validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated_at = state_dict["validated_at"]

    def names(self, module: ImageFamily) -> dict[str, Direction | None]:
        """Directions of a family's metrics, by the names under which they are logged.

        Raises:
            ValueError: a metric cannot be measured of this family.
        """
        evaluator = self.evaluator(module)
        return dict(evaluator.names) if evaluator else {}

    def evaluator(self, module: ImageFamily) -> Evaluator | None:
        """What measures a family at validation; not yet prepared. None: nothing does."""
        return module.evaluator(self.options)

    def check(self, module: ImageFamily, data: ShardData) -> None:
        """Checks that there are enough pictures for the metrics; raises a ValueError if not."""
        if (evaluator := self.evaluator(module)) is not None:
            driver.check_enough(evaluator, data, option=self.options.option)

    def load(self, module: ImageFamily) -> None:
        """Loads the published weights that the metrics need, as a training does before its first step.

        Raises:
            ValueError: a metric cannot be measured with them, such as ``is`` without a classifier.
        """
        if (evaluator := self.evaluator(module)) is not None:
            driver.load(evaluator, torch.device("cpu"))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Missing weights or splits are reported now, not at the first validation.
        self._evaluator = self._prepare(trainer, family_of(pl_module))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that was stopped between a step and the end of the validation due after it; Lightning skips that.
        module, interval = family_of(pl_module), trainer.val_check_interval
        steps = module.steps_done
        due = isinstance(interval, int) and steps > 0 and steps % interval == 0
        if due and self._validated_at != module.images_seen:
            trainer.validating = True
            run_validation(trainer)
            trainer.training = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and clock_of(trainer).validated:
            self._validated_at = family_of(pl_module).images_seen

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        bar, module = find(trainer, Progress), family_of(pl_module)
        evaluator = self._evaluator = self._evaluator or self._prepare(trainer, module)
        if evaluator is None:
            return
        begin = time.monotonic()
        with trainer.precision_plugin.val_step_context():
            scores = driver.score(
                evaluator,
                data_of(trainer),
                module.device,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                progress=lambda pictures: bar.evaluated(pictures, evaluator.num_samples) if bar else None,
                interrupted=lambda: trainer.state.fn == "fit" and bool(agreed(trainer)),
            )
        if scores:
            record(trainer, {**scores, "evaluation/samples": evaluator.num_samples})
            if (warning := collapse(scores)) is not None:
                rank_zero_print(warning)
            if trainer.is_global_zero and trainer.state.fn == "fit":
                run_folder(trainer).update(
                    evaluation_seconds=round(time.monotonic() - begin, 1),
                    evaluation_settings=evaluator.settings,
                    **({"sampling": sampled} if (sampled := module.sampled()) else {}),
                )

    on_test_epoch_end = on_validation_epoch_end

    def _prepare(self, trainer: L.Trainer, module: ImageFamily) -> Evaluator | None:
        evaluator = self.evaluator(module)
        if evaluator is not None:
            driver.prepare(
                evaluator,
                data_of(trainer),
                module.device,
                progress=trainer.is_global_zero,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
            )
        return evaluator
