"""FID, KID, IS and PRDC in the validation loop, on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from launch.callbacks.lookup import find
from launch.callbacks.progress import Progress
from launch.evaluation import samples as evaluation
from launch.evaluation import styles as style_evaluation
from launch.runs.tracking import record
from launch.training.lightning_internals import run_validation
from launch.training.signals import agreed
from lightning_modules.core.family import ImageFamily
from lightning_modules.kinds.generative import generator
from lightning_modules.kinds.stylizing import StyleFamily
from lightning_modules.metrics import specs
from lightning_modules.metrics.generation import GenerationMetrics
from lightning_modules.metrics.specs import Direction, ExtractorName, Kind
from lightning_modules.metrics.style import StyleMetrics


class Evaluation(L.Callback):
    """Scores generated images against the data set at every validation.

    Args:
        every_kimg: interval of validation in thousands of images.
        metrics: of a family that makes samples: ``fid``, ``kid``, ``is``, ``prdc``; of one that stylises: ``lpips``,
            ``ssim``, ``content_cosine``, ``gram_distance``, ``statistics_distance``, ``artfid``; empty: none.
        extractor: ``inception-tf`` for numbers comparable with papers, ``inception-clean``, or ``mobilenet_v2``, light
            enough for a machine without a GPU. Its name is in the metrics' names.
        num_samples: how many images are generated (papers use 50,000), or how many held-out photographs stylised.
        reference_split: split of the data set to compare with; papers use the training set.
        reference_samples: only so many of its images, where a CPU would take too long; None: all, as papers do.
        batch_size: images generated at a time on a rank.
        seed: which infinite sequence of samples.
    """

    def __init__(
        self,
        every_kimg: float = 200.0,
        metrics: Sequence[str] = ("fid", "kid"),
        extractor: ExtractorName = "inception-tf",
        num_samples: int = 10_000,
        reference_split: str = "train",
        reference_samples: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        if every_kimg <= 0 or num_samples < 10 or (reference_samples or 10) < 10:
            raise ValueError(
                "evaluation.every_kimg must be more than 0, evaluation.num_samples and reference_samples 10 or more"
            )
        self.every_kimg = every_kimg
        self.metrics = tuple(specs.find(name).name for name in metrics)
        self.extractor = extractor
        self.num_samples = num_samples
        self.reference_split = reference_split
        self.reference_samples = reference_samples
        self.batch_size = batch_size
        self.seed = seed
        self._scorer: GenerationMetrics | StyleMetrics | None = None
        #: Images seen at the last validation that came to its end.
        self._validated_at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"validated_at": self._validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated_at = state_dict["validated_at"]

    def names(self) -> dict[str, Direction | None]:
        """The names under which the metrics are logged, and which way is better."""
        return specs.full_names([specs.find(name) for name in self.metrics], self.extractor)

    def published_weights(self) -> list[str]:
        """Names of the published weights that the metrics need (``gesso fetch`` has them)."""
        chosen = [specs.find(name) for name in self.metrics]
        return list(dict.fromkeys(asset for spec in chosen for asset in spec.needs(self.extractor)))

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        # Weights that cannot be had, a split that is not there: now, not at the first validation, hours from here.
        if self.metrics:
            self._scorer = self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # A run that was stopped between a step and the end of the validation due after it; Lightning skips that.
        steps, interval = pl_module.steps_done, trainer.val_check_interval
        due = isinstance(interval, int) and steps > 0 and steps % interval == 0
        if due and self._validated_at != pl_module.images_seen:
            trainer.validating = True
            run_validation(trainer)
            trainer.training = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit" and not agreed(trainer):
            self._validated_at = pl_module.images_seen

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not self.metrics or trainer.sanity_checking:
            return
        bar = find(trainer, Progress)
        scorer = self._scorer = self._scorer or self._prepare(trainer, pl_module)
        where: Any = {
            "num_samples": self.num_samples,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "progress": lambda images: bar.evaluated(images, self.num_samples) if bar else None,
            "interrupted": lambda: trainer.state.fn == "fit" and bool(agreed(trainer)),
        }
        with trainer.precision_plugin.val_step_context():
            if isinstance(scorer, StyleMetrics):
                data: Any = trainer.datamodule  # type: ignore[attr-defined]
                scores = style_evaluation.score(pl_module, scorer, data, **where)
            else:
                scores = evaluation.score(pl_module, scorer, batch_size=self.batch_size, seed=self.seed, **where)
        if scores:
            record(trainer, {**scores, "evaluation/samples": self.num_samples})

    on_test_epoch_end = on_validation_epoch_end

    def _prepare(self, trainer: Any, module: ImageFamily) -> GenerationMetrics | StyleMetrics:
        if isinstance(module, StyleFamily):
            return style_evaluation.build_metrics(module, self._of_kind("stylization", module), self.extractor)
        generator(module)  # else a ValueError
        names = self._of_kind("generation", module)
        network = evaluation.extractor(self.extractor, module.device)
        statistics = evaluation.reference(
            trainer.datamodule,
            self.reference_split,
            network,
            limit=self.reference_samples,
            progress=trainer.is_global_zero,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return GenerationMetrics(network, statistics, names, num_samples=self.num_samples).to(module.device)

    def _of_kind(self, kind: Kind, module: ImageFamily) -> list[str]:
        """The metrics' names, if they are all of this family's kind."""
        what = f"a {type(module).__name__}"
        chosen = specs.choose(kind, self.metrics, "training", what=what, option="evaluation.metrics")
        return [spec.name for spec in chosen]
