"""A training as a typed value, which the command line, sweeps and notebooks build, check, change and run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gesso.common.strict_yaml import read_mapping
from launch.checkpoints.files import older_one_named
from launch.runs.folder import RunFolder, check_idle, find_checkpoint, is_over, open_run, slurm_attempt
from launch.training.layers import Layer, Recipe, layers
from launch.training.outcome import Run, last_metrics

if TYPE_CHECKING:
    import lightning as L

    from launch.training.lightning_cli import GessoCLI, Parsed


@dataclass(frozen=True)
class Training:
    """A training that has not begun.

    Args:
        recipe: name of a packaged recipe, a YAML file, the content of such a file, or several of these; later ones
            override earlier ones.
        overrides: option -> value, as ``{"run.kimg": 20, "model.beta": 2}``; a value may be a string as on the command
            line.
        resume: a run folder: its config comes first, and training continues from its last checkpoint.
        checkpoint: a checkpoint, or a run for its last one, from which a new run starts.
        callbacks: Lightning callbacks, called after those of the recipe.
        folder: the run folder; None: a new folder under ``run.root``.
        command: the command line, for run.json; "" from Python.

    Example:
        >>> training = Training("mnist-dcgan", {"run.kimg": 20, "trainer.accelerator": "cpu"})
        >>> training.changed({"model.latent_dim": 16}).overrides["model.latent_dim"]
        16
    """

    recipe: Recipe | Sequence[Recipe] = ()
    overrides: Mapping[str, object] = field(default_factory=dict)
    resume: str | os.PathLike[str] | None = None
    checkpoint: str | os.PathLike[str] | None = None
    callbacks: Sequence[L.Callback] = ()
    folder: Path | None = None
    command: str = ""

    def changed(self, overrides: Mapping[str, object]) -> Training:
        """The same training with more ``overrides``."""
        return replace(self, overrides={**self.overrides, **overrides})

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes in their order, a resumed run's own config first."""
        single = isinstance(self.recipe, str | os.PathLike | Mapping)
        given: Sequence[Recipe] = (self.recipe,) if single else self.recipe  # type: ignore[assignment]
        return (*([whole_config(open_run(self.resume))] if self.resume else []), *given)

    def layers(self) -> list[Layer]:
        """Recipes and overrides as plain data.

        Raises:
            FileNotFoundError, ValueError: a recipe, a run or a family does not exist.
        """
        from launch.training.lightning_cli import TOP_LEVEL

        return layers(self.recipes, self.overrides, sections=TOP_LEVEL)

    def parse(self) -> Parsed:
        """Parses the options and checks their types; builds nothing.

        Raises:
            FileNotFoundError, ValueError: one line.
        """
        from launch.training.lightning_cli import Parsed

        return Parsed(self.layers())

    def build(self, *, checkpoint: Path | None = None, logs: bool = False, accelerator: str | None = None) -> GessoCLI:
        """Builds data module, family and trainer; writes nothing.

        Args:
            checkpoint: the checkpoint from which training continues, for the other ranks that it starts.
            logs: whether the trainer logs to metrics.csv and W&B.
            accelerator: on which the trainer is built, in place of the config's, which keeps its own.

        Raises:
            FileNotFoundError, ValueError: one line.
        """
        from launch.training.lightning_cli import GessoCLI

        folder = Path(self.resume) if self.resume else self.folder
        return GessoCLI(
            self.layers(),
            folder=folder,
            callbacks=self.callbacks,
            checkpoint=checkpoint,
            logs=logs,
            accelerator=accelerator,
        )

    def fit(self) -> Run:
        """Trains, and records in the run folder how training ends.

        Returns:
            The run: ``finished``, or ``interrupted`` by Ctrl-C, a signal or a limit of the Trainer (``max_steps``,
            ``max_time`` ...), and then saved.

        Raises:
            FileNotFoundError, ValueError: a wrong option or a missing file; one line; nothing was written.
            RuntimeError, OSError: what ended training; also recorded in the run folder.
        """
        from lightning.pytorch.utilities import rank_zero_only

        from launch.checkpoints.files import images_seen
        from launch.training.fit import fit
        from launch.training.resumption import resume_point

        checkpoint, trained = None, 0
        if self.resume:
            run = open_run(self.resume)
            info = run.info()
            seen, last = int(info.get("images_seen", 0)), run.last_checkpoint
            # Not where the last checkpoints were deleted: then there is something left to train.
            over = is_over(info) and (last is None or images_seen(last) >= seen)
            trained = seen if over and self.checkpoint is None else 0
            if len(self.recipes) == 1 and not self.overrides and over:
                from launch.runs.tracking import rank_zero_print

                rank_zero_print(f"{run.path} has finished; to go on, train for longer: --run.kimg")
                return Run(run.path, "finished", last_metrics(run), seen)
            if slurm_attempt() is None and self.checkpoint is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                check_idle(run)
            checkpoint = resume_point(run)
        if self.checkpoint:
            checkpoint = find_checkpoint(self.checkpoint)
        cli, _ = self._begin(checkpoint, logs=True)
        if trained and trained >= round(1000 * cli.config_init.run.kimg):
            # Its config would tell of a training that never was.
            from launch.runs.tracking import rank_zero_print

            rank_zero_print(
                f"{run.path} has finished at {trained / 1000:g} kimg, so that other options train nothing, and its "
                "config.yaml stays as it is; to go on, train for longer: --run.kimg"
            )
            return Run(run.path, "finished", last_metrics(run), trained)
        return fit(cli, checkpoint, command=self.command, resumed=self.resume is not None)

    def validate(self) -> Run:
        """Runs the validation loop with the averaged weights of ``resume``'s or ``checkpoint``'s state.

        Raises:
            FileNotFoundError, ValueError: one line.
        """
        return self._evaluate("validate")

    def test(self) -> Run:
        """Runs the test loop; otherwise like ``validate``."""
        return self._evaluate("test")

    def _evaluate(self, verb: Literal["validate", "test"]) -> Run:
        from launch.training.fit import evaluate

        checkpoint = open_run(self.resume).last_checkpoint if self.resume else None
        if self.checkpoint:
            checkpoint = find_checkpoint(self.checkpoint)
        cli, _ = self._begin(checkpoint, logs=False)
        return evaluate(cli, verb, checkpoint)

    def _begin(self, checkpoint: Path | None, *, logs: bool) -> tuple[GessoCLI, dict[str, Any] | None]:
        """Builds and checks the training; returns it with the checkpoint's content."""
        from launch.checkpoints import layout
        from launch.training.fit import make_ready
        from launch.training.resumption import check_own

        # Read first: a damaged checkpoint is reported before anything slow begins.
        with older_one_named(checkpoint):
            saved = layout.read(checkpoint) if checkpoint else None
        if self.resume and checkpoint and saved and not self.checkpoint:
            check_own(open_run(self.resume), checkpoint, saved)
        with moved_data_named(resumed=self.resume is not None):
            cli = self.build(checkpoint=checkpoint, logs=logs)
        if self.callbacks and getattr(cli.trainer.strategy.launcher, "starts_others", False):
            raise ValueError("callbacks given in Python reach no other rank: put them under trainer.callbacks")
        with moved_data_named(resumed=self.resume is not None):
            make_ready(cli, saved)
        return cli, saved


def whole_config(run: RunFolder) -> Path:
    """A run's config.yaml, which has every section: what is cut off would be trained on with other options.

    Raises:
        ValueError: a section is missing.
    """
    from launch.training.lightning_cli import TOP_LEVEL

    there = read_mapping(run.config, what="run's config: that maps sections (model, data, run ...) to their options")
    if missing := [section for section in TOP_LEVEL if section not in there]:
        raise ValueError(
            f"{run.config}: cut off or edited: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; "
            f"restore the file, or begin a new run with `gesso fit --config RECIPE --checkpoint {run.path}`"
        )
    return run.config


@contextlib.contextmanager
def moved_data_named(*, resumed: bool) -> Iterator[None]:
    """Context manager: the error of a resumed run's missing data says how to name its new place."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        if not resumed or "shard set" not in str(error):
            raise
        raise type(error)(f"{error}; if the data has moved, add --data.path NEW_PLACE") from error
