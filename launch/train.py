"""`gesso fit|validate|test`: LightningCLI over recipes, families and data modules."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import shlex
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

import datamodules.content_style
import datamodules.shards  # noqa: F401 - the command line finds data modules by their names
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import Clock, clock_of, find, run_folder
from launch.callbacks.ema import EMA
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.interruption import Interruption
from launch.callbacks.previews import Previews
from launch.callbacks.progress import Progress
from launch.checkpoints import layout
from launch.hardware import affordable_precision, is_out_of_memory, out_of_memory
from launch.recipes import resolve_recipe
from launch.report import write_report
from launch.resumption import resume_point
from launch.runs import (
    RunFolder,
    Superseded,
    find_checkpoint,
    git_state,
    naming,
    new_run_path,
    open_run,
    slurm_attempt,
    this_process,
    versions,
)
from launch.signals import COME_AGAIN, Interrupted, deaf_to_ctrl_c
from launch.strategies import ddp, zero
from launch.strategies.supervision import RankLost
from launch.tracking import MetricsCSV, WandbMode, finish_wandb, say, wandb_logger
from launch.weights import provide_styles, provide_weights
from lightning_modules import FAMILIES
from lightning_modules.base import ImageFamily
from lightning_modules.saved import check_checkpoint

#: What the first rank has after a failure to book it, and to write the report.
REPORT_SECONDS = 20.0


@dataclass
class RunOptions:
    """One training.

    Args:
        kimg: length of the training in thousands of images.
        log_every_kimg: interval of losses and images/s.
        name: of the run folder; the date is added.
        root: folder of the run folders.
        project: W&B project.
        group: W&B group of runs that belong together, such as seeds of one recipe; a sweep's trials have one.
        wandb: ``auto`` is online where there is a key, else offline.
        nonfinite_limit: training stops when a network's losses or gradients were not finite in so many updates in a
            row; until then such updates are skipped and counted.
    """

    kimg: float = 1000.0
    log_every_kimg: float = 5.0
    name: str = "run"
    root: str = "runs"
    project: str = "gesso"
    group: str | None = None
    wandb: WandbMode = "auto"
    nonfinite_limit: int = 20


class GessoCLI(LightningCLI):
    """LightningCLI with gesso's callbacks as options and a run folder under every trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunOptions, "run")
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(Previews, "previews")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        options = self.config_init.run
        path = new_run_path(options.root, options.name)
        callbacks = [
            Clock(options.kimg, options.log_every_kimg),
            Progress(),
            *(self.config_init.trainer.callbacks or []),
            Interruption(),
        ]
        trainer = self.config_init.trainer
        kwargs["precision"] = affordable_precision(trainer.precision, trainer.accelerator)
        return super().instantiate_trainer(callbacks=callbacks, logger=False, default_root_dir=str(path), **kwargs)


class Parsed(GessoCLI):
    """Parses only."""

    def instantiate_classes(self) -> None:
        pass


def build(argv: list[str], kind: type[GessoCLI] = GessoCLI) -> GessoCLI:
    """Parses ``argv`` (recipe and overrides) and instantiates trainer, family and data module.

    Args:
        argv: the arguments.
        kind: ``Parsed`` leaves it at that, for who only wants to know whether the types are right.

    Raises:
        ValueError: an option is unknown or has a wrong value; one line.
    """
    for module in FAMILIES.values():
        import_module(module)
    ddp.register()
    zero.register()
    quiet()
    try:
        return kind(
            ImageFamily,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"prog": "gesso fit", "exit_on_error": False},
            trainer_defaults={
                "max_epochs": -1,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=argv,
            run=False,
        )
    except (ArgumentError, ValueError) as error:
        raise ValueError(parser_error(str(error))) from error


def main(verb: str, argv: list[str], callbacks: Sequence[L.Callback] = ()) -> int:
    """Runs ``gesso fit``, ``validate`` or ``test``; returns the exit code.

    Args:
        verb: which of them.
        argv: its arguments.
        callbacks: of whoever trains from Python; they come last, and do not belong to the recipe.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume")
    parser.add_argument("--checkpoint")
    own, rest = parser.parse_known_args(argv)
    inherited = os.environ.get("GESSO_RUN")
    try:
        return _main(verb, argv, own, with_recipes(rest), callbacks)
    finally:
        # The ranks that this process started have it by now; the next training here is another run.
        if inherited is None:
            os.environ.pop("GESSO_RUN", None)


def _main(
    verb: str, argv: list[str], own: argparse.Namespace, arguments: list[str], callbacks: Sequence[L.Callback]
) -> int:
    checkpoint: Path | None = None
    if own.resume:
        run = open_run(own.resume)
        if verb == "fit" and not arguments and run.info().get("state") == "finished":
            say(f"{run.path} has finished; to go on, train for longer: --run.kimg")
            return 0
        checkpoint = resume_point(run) if verb == "fit" else run.last_checkpoint
        os.environ["GESSO_RUN"] = str(run.path)
        arguments = ["--config", str(run.config), *arguments]
    if own.checkpoint:
        checkpoint = find_checkpoint(own.checkpoint)
    # A damaged checkpoint is known before anything long begins.
    saved = layout.read(checkpoint) if checkpoint else None
    cli = build(arguments)
    cli.trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    check_data(cli)
    provide_weights(cli.model)
    provide_styles(cli.model)
    if saved:
        check_checkpoint(cli.model, saved)
    if verb == "fit":
        return fit(cli, checkpoint, command=shlex.join(["gesso", verb, *argv]), resumed=bool(own.resume))
    evaluate(cli, verb, checkpoint, saved)
    return 0


def evaluate(cli: GessoCLI, verb: str, checkpoint: Path | None, saved: dict[str, Any] | None) -> None:
    """Runs the validation or test loop, with the averaged weights, and prints what it measured."""
    trainer: Any = cli.trainer
    if saved:
        # Lightning restores callbacks' states for training only.
        averages = saved["callbacks"].get(EMA.__qualname__)
        ema = find(trainer, EMA)
        if averages and ema:
            ema.load_state_dict(averages)
    getattr(trainer, verb)(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
    for name, value in sorted(trainer.callback_metrics.items()):
        rank_zero_only(print)(f"{name:32} {value.item():.6g}")


def fit(cli: GessoCLI, checkpoint: Path | None, *, command: str, resumed: bool) -> int:
    """Trains, and leaves a run folder that tells the whole story, however training ends."""
    trainer: Any = cli.trainer
    module: Any = cli.model
    run = run_folder(trainer)
    options = cli.config_init.run
    if options.nonfinite_limit < 1:
        raise ValueError(f"run.nonfinite_limit is {options.nonfinite_limit}; it must be 1 or more")
    open_folder(cli, run, command=command, resumed=resumed)
    data: Any = cli.datamodule
    evaluation = find(trainer, Evaluation)
    assert evaluation is not None
    # Lightning counts batches; every interval of ours counts images.
    trainer.val_check_interval = math.ceil(evaluation.every_kimg * 1000 / data.global_batch_size)
    trainer.check_val_every_n_epoch = None
    module.nonfinite_limit = options.nonfinite_limit
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_unset=False))
    wandb = wandb_logger(run, options.project, options.wandb, config, group=options.group)
    trainer.loggers = [MetricsCSV(run.metrics), *([wandb] if wandb else [])]
    trainer.strategy.last_words = lambda reason: rank_zero_only(run.update)(state="failed", error=reason)
    resume = f"gesso fit --resume {shlex.quote(str(run.path))}"
    try:
        trainer.fit(module, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except Interrupted as interrupted:
        close_folder(trainer, "interrupted")
        say(f"interrupted at {module.images_seen / 1000:.1f} kimg and saved; go on with: {resume}")
        # What starts the ranks kills the first one, busy with the report, when another ends with an error.
        return exit_code(interrupted) if trainer.is_global_zero else 0
    except Superseded:
        raise
    except BaseException as problem:
        error = explained(problem, trainer, module, data.global_batch_size // trainer.world_size)
        # Lightning turns a second Ctrl-C, which does not wait for the step's end, into SystemExit.
        state = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        close_folder(trainer, state, error=one_line(f"{type(error).__name__}: {error}"))
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if environment is not None and environment.creates_processes_externally and not trainer.is_global_zero:
            # srun and torchrun kill all ranks when one has failed: the first one has a report to write.
            time.sleep(REPORT_SECONDS)
        if run.last_checkpoint:
            say(f"the last checkpoint is whole; go on with: {resume}")
        if error is problem:
            raise
        raise error from problem
    close_folder(trainer, "finished")
    say(f"finished {module.images_seen / 1000:.1f} kimg: {run.path}")
    return 0


def exit_code(interrupted: Interrupted) -> int:
    """A shell's for a signal; under SLURM one of its own, since srun kills with signals, too."""
    return COME_AGAIN if "SLURM_PROCID" in os.environ else 128 + interrupted.signal_number


def explained(problem: BaseException, trainer: Any, module: Any, batch_size: int) -> BaseException:
    """``problem``, or what lies behind it: a lost rank, or memory that did not suffice."""
    if is_out_of_memory(problem):
        return out_of_memory(trainer, module, batch_size)
    supervision = getattr(trainer.strategy, "supervision", None)
    if supervision is None:
        return problem
    lost = supervision.verdict(problem)
    supervision.stop()
    return RankLost(lost) if lost else problem


def check_data(cli: GessoCLI) -> None:
    """Raises a ValueError when the data does not fit the family."""
    data: Any = cli.datamodule
    cli.model.check_data(
        channels=data.channels, resolution=data.size, num_classes=data.num_classes, unlabelled=data.unlabelled
    )


def save_config(cli: GessoCLI, run: RunFolder) -> None:
    """Writes the resolved config, with which the run is resumed from any folder."""
    config = cli.config.clone()
    for name in {"path", "style_path"} & set(vars(config.data.init_args)):
        config.data.init_args[name] = os.path.abspath(config.data.init_args[name])
    if "styles" in config.model.init_args:
        config.model.init_args.styles = [os.path.abspath(file) for file in config.model.init_args.styles]
    with naming(run.config):
        run.path.mkdir(parents=True, exist_ok=True)
        partial = run.config.with_suffix(".yaml.partial")
        cli.parser.save(config, partial, skip_unset=False, overwrite=True, multifile=False)
        partial.replace(run.config)


@rank_zero_only
def open_folder(cli: GessoCLI, run: RunFolder, *, command: str, resumed: bool) -> None:
    """Writes config.yaml and the run's identity before anything can go wrong."""
    for folder in (run.path, run.samples, run.checkpoints):
        folder.mkdir(parents=True, exist_ok=True)
    save_config(cli, run)
    before = run.info()
    run.update(
        name=run.path.name,
        family=type(cli.model).__name__,
        # What to type for the same training: a resumed run's command is the first one.
        command=before["command"] if resumed and "command" in before else command,
        created=before.get("created") or datetime.now().astimezone().isoformat(timespec="seconds"),
        state="running",
        error=None,
        restarts=before.get("restarts", -1) + 1 if resumed else 0,
        versions=versions(),
        git=git_state(),
        host=os.uname().nodename,
        owner=this_process(),
        slurm_attempt=slurm_attempt(),
        device=str(cli.trainer.accelerator.__class__.__name__).removesuffix("Accelerator"),
        world_size=cli.trainer.world_size,
        total_kimg=cli.config_init.run.kimg,
    )


@rank_zero_only
def close_folder(trainer: Any, state: str, error: str | None = None) -> None:
    """Books how training ended, and writes the report. A Ctrl-C must not cut this short."""
    with deaf_to_ctrl_c():
        try:
            clock_of(trainer).write(trainer, trainer.lightning_module, state=state, error=error)
            finish_wandb(failed=state == "failed")
            say(f"report: {write_report(run_folder(trainer).path)}")
        except OSError as problem:
            # A full disk that ended training must not be hidden by the report that no longer fits.
            say(f"no report: {problem}")


def with_recipes(argv: list[str]) -> list[str]:
    """Replaces a packaged recipe's name after ``--config`` by its file."""
    arguments = list(argv)
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            arguments[position] = f"--config={resolve_recipe(argument.removeprefix('--config='))}"
        elif argument == "--config" and position + 1 < len(arguments):
            arguments[position + 1] = str(resolve_recipe(arguments[position + 1]))
    return arguments


def parser_error(message: str) -> str:
    """What is wrong, out of the parser's account of all that it tried."""
    text = one_line(message)
    inner = re.search(
        r"Problem with given class_path '[\w.]*?(\w+)': (.*?)(?: - Expected a <class 'NoneType'>|$)", text
    )
    if not inner:
        # So it says what a constructor has refused, of a class that is named by its whole path.
        refused = re.search(r"Errors: - (.*?) - Expected a <class 'NoneType'>.*class_path='[\w.]*?(\w+)'", text)
        return f"{refused[2]}: {refused[1]}" if refused else text
    detail = re.sub(r"<class '(\w+)'>", r"\1", inner[2]).replace("typing.Literal", "one of ")
    detail = detail.replace("Parser key ", "").replace("Expected a ", "expected ")
    kind = "model" if inner[1] in FAMILIES else "data"
    return f"{inner[1]}: {detail}; `gesso fit --{kind}.help {inner[1]}` lists its options"


def one_line(message: str) -> str:
    return " ".join(message.split())


def quiet() -> None:
    """Silences what Lightning says of its own and what is of no use to a person who trains."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    # A login node has srun, too.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system")
    # Between Lightning 2.6 and newer releases of its dependencies; nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    warnings.filterwarnings("ignore", message=".*JsonargparseDeprecationWarning.*")
    # Between DeepSpeed 0.19 and torch 2.14.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*instantiate_classes.*was deprecated.*")
