"""`gesso fit|validate|test`: a training, its run folder, and how it may end."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.utilities import rank_zero_only

from gesso.common.text import one_line
from launch.callbacks.clock import clock_of
from launch.callbacks.ema import EMA
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.lookup import find, run_folder
from launch.checkpoints import layout
from launch.report import write_report
from launch.runs.folder import (
    RunFolder,
    Superseded,
    find_checkpoint,
    git_state,
    open_run,
    slurm_attempt,
    this_process,
    versions,
)
from launch.runs.tracking import MetricsCSV, finish_wandb, say, wandb_logger
from launch.strategies.supervision import RankLost
from launch.training.hardware import is_out_of_memory, out_of_memory
from launch.training.lightning_cli import GessoCLI, build, check_data, save_config, with_recipes
from launch.training.provisions import provide_styles, provide_weights
from launch.training.resumption import resume_point
from launch.training.signals import COME_AGAIN, Interrupted, deaf_to_ctrl_c
from lightning_modules.core.saved import check_checkpoint

#: What the first rank has after a failure to book it, and to write the report.
REPORT_SECONDS = 20.0


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
