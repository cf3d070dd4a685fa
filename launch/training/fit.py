"""Runs a training: checks, the run folder, and the ways in which it may end."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from gesso.common.text import one_line
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import clock_of
from launch.callbacks.ema import EMA
from launch.callbacks.lookup import family_of, find, run_folder
from launch.callbacks.opening import Opening
from launch.evaluation.classes import without_pictures
from launch.inference.loading import load_autoencoder
from launch.report import write_report
from launch.runs.folder import (
    RunFolder,
    Superseded,
    git_state,
    slurm_attempt,
    this_process,
    versions,
)
from launch.runs.tracking import rank_zero_print
from launch.runs.weights_and_biases import finish_wandb
from launch.strategies.supervision import RankLost
from launch.training import limits
from launch.training.family_files import load_all
from launch.training.family_runs import load_runs
from launch.training.first_cause import first_cause
from launch.training.hardware import fit_threads, is_out_of_memory, out_of_memory
from launch.training.lightning_cli import GessoCLI, check_data, save_config
from launch.training.outcome import Run, State, last_metrics
from launch.training.signals import Interrupted, ignoring_ctrl_c
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.saved import check_checkpoint

#: Seconds that rank 0 has after a failure to record it and to write the report.
REPORT_SECONDS = 20.0


def make_ready(cli: GessoCLI, saved: dict[str, Any] | None) -> None:
    """Checks data and checkpoint, and loads the weights and pictures that the family needs; writes nothing.

    Args:
        cli: the training.
        saved: content of the checkpoint from which it continues; None: it starts from scratch.

    Raises:
        FileNotFoundError, ValueError: one line.
    """
    check_data(cli)
    if (line := without_pictures(cli.datamodule, cli.model)) is not None:
        rank_zero_print(line)
    if (latents := cli.datamodule.latents) is not None:
        cli.model.take_latents(
            encoder=latents.encoder,
            mean=latents.mean,
            std=latents.std,
            picture_size=latents.picture_size,
            picture_channels=latents.picture_channels,
        )
    cli.model.take_set_size(cli.datamodule.manifest.split("train").samples)
    load_all(cli.model)
    load_autoencoder(cli.model)
    if saved:
        check_checkpoint(cli.model, saved)
        if (ema := find(cli.trainer, EMA)) is not None:
            ema.check_saved(saved)
    else:
        load_runs(cli.model)


def evaluate(cli: GessoCLI, verb: Literal["validate", "test"], checkpoint: Path | None) -> Run:
    """Runs the validation or test loop, with the averaged weights."""
    trainer = cli.trainer
    getattr(trainer, verb)(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return Run(run_folder(trainer).path, "finished", metrics, cli.model.images_seen, rank=trainer.global_rank)


def fit(cli: GessoCLI, checkpoint: Path | None, *, command: str, resumed: bool) -> Run:
    """Trains, and records in the run folder how training ends.

    Nothing is written before training begins, after the last check: a resumed run keeps its files until then, and a
    new run has none.
    """
    trainer, module = cli.trainer, cli.model
    run = run_folder(trainer)
    opening = find(trainer, Opening)
    assert opening is not None
    opening.action = partial(open_folder, cli, run, command=command, resumed=resumed)
    fit_threads(trainer)
    resume = f"gesso fit --resume {shlex.quote(str(run.path))}"
    root_is_new = not run.path.parent.exists()
    try:
        with first_cause(trainer):
            trainer.fit(module, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        limit = limits.reached(trainer)
        if limit and not opening.done:
            raise ValueError(
                f"{limit.option} lets this training go no further than {progress_of(trainer)}: set it higher, or "
                f"--{limit.option} {limit.none}"
            )
    except Interrupted as interrupted:
        close_folder(trainer, "interrupted")
        rank_zero_print(f"interrupted at {module.images_seen / 1000:.1f} kimg and saved; go on with: {resume}")
        return outcome(trainer, "interrupted", interrupted.signal_number)
    except Superseded:
        raise
    except BaseException as problem:
        error = cause_of(problem, trainer, module, cli.datamodule.global_batch_size // trainer.world_size)
        # Lightning turns a second Ctrl-C, which does not wait for the step's end, into SystemExit.
        state = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        what = one_line(f"{type(error).__name__}: {error}")
        if opening.done:
            close_folder(trainer, state, error=what)
        elif cli.new_folder and not isinstance(error, RankLost):
            remove_new_folder(run, root_too=root_is_new)
        elif not resumed or isinstance(error, RankLost):
            record_failed_start(run, what)
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if environment is not None and environment.creates_processes_externally and not trainer.is_global_zero:
            # srun and torchrun kill all ranks when one has failed: the first one has a report to write.
            time.sleep(REPORT_SECONDS)
        if run.last_checkpoint:
            rank_zero_print(f"the last checkpoint is whole; go on with: {resume}")
        if error is problem:
            raise
        raise error from problem
    if limit:
        close_folder(trainer, "interrupted", ended_by=limit.option)
        rank_zero_print(
            f"{limit.option} ended training at {progress_of(trainer)}, saved; go on with: "
            f"{resume} --{limit.option} {limit.none}"
        )
        return outcome(trainer, "interrupted")
    early = module.images_seen < clock_of(trainer).total_images
    close_folder(trainer, "finished", ended_by="a callback" if early else None)
    rank_zero_print(f"finished {module.images_seen / 1000:.1f} kimg{', ended by a callback' * early}: {run.path}")
    return outcome(trainer, "finished")


def progress_of(trainer: L.Trainer) -> str:
    """Progress of the training: ``0.3 of 1,000 kimg``."""
    seen, total = family_of(trainer.lightning_module).images_seen, clock_of(trainer).total_images
    return f"{seen / 1000:,.4g} of {total / 1000:,.4g} kimg"


def outcome(trainer: L.Trainer, state: State, signal: int = 0) -> Run:
    """The result of a training, with the last metrics of the run folder."""
    run = run_folder(trainer)
    return Run(
        run.path, state, last_metrics(run), family_of(trainer.lightning_module).images_seen, signal, trainer.global_rank
    )


def cause_of(problem: BaseException, trainer: L.Trainer, module: ImageFamily, batch_size: int) -> BaseException:
    """The cause of ``problem``: a lost rank, too little memory, or itself."""
    if is_out_of_memory(problem):
        return out_of_memory(trainer, module, batch_size)
    supervision = getattr(trainer.strategy, "supervision", None)
    if supervision is None:
        return problem
    lost = supervision.lost_rank(problem)
    supervision.stop()
    return RankLost(lost) if lost else problem


@rank_zero_only
def open_folder(cli: GessoCLI, run: RunFolder, *, command: str, resumed: bool) -> None:
    """Writes config.yaml and the run's identity before the first step."""
    for folder in (run.path, run.samples, run.checkpoints):
        folder.mkdir(parents=True, exist_ok=True)
    save_config(cli, run)
    before = run.info()
    checkpoints = find(cli.trainer, Checkpoints)
    run.update(
        name=run.path.name,
        # Stays what it is in a copied or renamed folder; where run.json was lost, the checkpoint still has it.
        identity=before.get("identity")
        or (checkpoints.loaded_identity if resumed and checkpoints else None)
        or secrets.token_hex(8),
        family=type(cli.model).__name__,
        abilities=sorted(cli.model.abilities()),
        # The command for the same training: that of the first start of a resumed run.
        command=before["command"] if resumed and "command" in before else command,
        created=before.get("created") or datetime.now().astimezone().isoformat(timespec="seconds"),
        state="running",
        error=None,
        ended_by=None,
        restarts=before.get("restarts", -1) + 1 if resumed else 0,
        versions=versions(),
        git=git_state(),
        host=os.uname().nodename,
        owner=this_process(),
        slurm_attempt=slurm_attempt(),
        device=str(cli.trainer.accelerator.__class__.__name__).removesuffix("Accelerator"),
        world_size=cli.trainer.world_size,
        total_kimg=cli.config_init.run.kimg,
        **{name: fact for logger in cli.trainer.loggers for name, fact in getattr(logger, "facts", {}).items()},
    )


@rank_zero_only
def close_folder(trainer: L.Trainer, state: str, *, error: str | None = None, ended_by: str | None = None) -> None:
    """Records how training ended, and writes the report; Ctrl-C is ignored meanwhile.

    Args:
        trainer: the trainer.
        state: ``finished``, ``interrupted`` or ``failed``.
        error: what went wrong.
        ended_by: what ended training before its length in images.
    """
    run, module = run_folder(trainer), family_of(trainer.lightning_module)
    with ignoring_ctrl_c():
        # If a full disk ended training, that error must not be hidden by this one.
        with trying(f"{run.path}/run.json does not say that training has {state}"):
            clock_of(trainer).write(trainer, module, state=state, error=error, ended_by=ended_by)
        finish_wandb(failed=state == "failed")
        with trying("no report"):
            rank_zero_print(f"report: {write_report(run.path)}")


@contextlib.contextmanager
def trying(otherwise: str) -> Iterator[None]:
    """Context manager: prints an error inside it, after the text ``otherwise``, instead of raising it."""
    try:
        yield
    except Superseded:
        raise
    except Exception as problem:
        rank_zero_print(f"{otherwise}: {one_line(problem if isinstance(problem, OSError) else repr(problem))}")


@rank_zero_only
def remove_new_folder(run: RunFolder, *, root_too: bool) -> None:
    """Removes the folder of a new run that never began, with all that loggers wrote into it."""
    finish_wandb(failed=True)
    shutil.rmtree(run.path, ignore_errors=True)
    if root_too:
        with contextlib.suppress(OSError):
            run.path.parent.rmdir()


@rank_zero_only
def record_failed_start(run: RunFolder, error: str) -> None:
    """Records why a run never began, in a folder that a job or a sweep has given it."""
    finish_wandb(failed=True)
    run.path.mkdir(parents=True, exist_ok=True)
    run.update(owner=this_process(), state="failed", error=error)
