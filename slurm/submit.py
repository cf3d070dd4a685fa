"""Turns a training command into a queued job, after all checks that need no GPU."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.runs.folder import RunFolder
from slurm import queue
from slurm.asked import Request, check_request
from slurm.attempts import note_job
from slurm.script import GESSO, Job, render

if TYPE_CHECKING:
    from launch.training.lightning_cli import GessoCLI
    from launch.training.training import Training

#: Folders that are usually local to each machine.
LOCAL = ("/tmp", "/var/tmp", "/dev/shm")


@dataclass(frozen=True)
class Prepared:
    """A training that passed all checks, and its run folder."""

    cli: GessoCLI
    run: RunFolder


def submit(request: Request, *, dry_run: bool = False) -> str:
    """Checks a request, writes its run folders and queues it.

    Returns:
        Text for the user: job and runs, or, for a dry run, the script.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: one line; nothing was queued, and nothing was written.
    """
    # Kept from before the recipe is read, which may change the environment: the job gets this one.
    environment = dict(os.environ)
    check_request(request)
    if not dry_run and shutil.which("sbatch") is None:
        raise FileNotFoundError(
            "sbatch not found: this machine belongs to no SLURM cluster; go to a login node, or look at the script "
            "with --dry-run"
        )
    trainings = prepare(request)
    job = job_of(request, trainings)
    if dry_run:
        try:
            check_job(render(job), environment)
        except (FileNotFoundError, queue.ControllerUnreachable) as error:
            print(f"not checked by SLURM: {error}", file=sys.stderr)
        return render(job)
    check_job(render(job), environment)
    return write_and_queue(request, job, trainings, environment)


# ---- the training ---------------------------------------------------------------------------------------------------


def prepare(request: Request) -> list[Prepared]:
    """Builds each training of a request as a compute node will, but on the CPU; checks data, weights and memory.

    Raises:
        ValueError, FileNotFoundError: a check failed; one line.
    """
    combinations = itertools.product(*([(name, v) for v in values] for name, values in request.array.items()))
    # This process may itself be in a job (an interactive one), whose ranks Lightning would look for.
    for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        del os.environ[name]
    trainings = []
    for number, combination in enumerate(combinations):
        trainings.append(_prepare(request, request.training.changed(dict(combination)), number))
    if not trainings:
        raise ValueError("--array: no combination of values")
    return trainings


def _prepare(request: Request, training: Training, number: int) -> Prepared:
    from launch.callbacks.lookup import run_folder
    from launch.training.dry_build import check, dry_build, prefetch

    job = request.job
    named = {"run.name": job.name} if job.name else {}
    shape = {"trainer.devices": job.tasks_per_node, "trainer.num_nodes": job.nodes}
    cli = dry_build(training.changed({**named, **shape}))
    path = Path(os.path.abspath(run_folder(cli.trainer).path))
    check(cli)
    if not request.trust_paths:
        check_places({**places_of(cli), "run folder": str(path)})
    prefetch(cli)
    check_memory(cli, job, request.gpu_memory)
    cli.config.trainer.accelerator = "gpu" if job.gpus_per_node else "cpu"
    cli.config.trainer.devices = job.tasks_per_node
    return Prepared(cli, RunFolder(path if len(request.array) == 0 else path.with_name(f"{path.name}-{number}")))


def places_of(cli: GessoCLI) -> dict[str, str]:
    """What a training reads, and where that lies."""
    data: Any = cli.datamodule
    paths: dict[str, str] = data.paths()
    places = {"data set" if option == "path" else f"data set ({option})": path for option, path in paths.items()}
    return places | {f"picture {file}": file for files in cli.model.pictures().values() for file in files}


def check_places(places: Mapping[str, str]) -> None:
    """Checks that the compute nodes see these places.

    Args:
        places: what it is -> its path.

    Raises:
        ValueError: one lies in a folder that is usually local to a machine.
    """
    local = [*LOCAL, *filter(None, [os.environ.get("TMPDIR")])]
    for what, place in places.items():
        path = os.path.realpath(place)
        for folder in local:
            if Path(path).is_relative_to(folder):
                raise ValueError(
                    f"{place}: this {what} lies under {folder}, which compute nodes do not see: put it on a file "
                    "system that they share, or say --trust-paths if they do"
                )


def check_memory(cli: GessoCLI, job: Job, gib: float | None) -> None:
    """Checks that a rank fits into the memory of a GPU, and that the batch can be split over ranks and micro-batches.

    Args:
        cli: the training.
        job: its job.
        gib: memory of one GPU in GiB; None: not checked.

    Raises:
        ValueError: one of them does not hold; one line.
    """
    from launch.planning.footprint import rank_needs
    from launch.planning.memory import GIB, images_per_micro_batch

    model: Any = cli.model
    data: Any = cli.datamodule
    ranks = job.nodes * job.tasks_per_node
    images = images_per_micro_batch(data.global_batch_size, ranks=ranks, micro_batches=model.micro_batches)
    if gib is None or not job.gpus_per_node:
        return
    needs = rank_needs(cli.trainer, model, images, ranks=ranks)
    if needs > gib * GIB:
        raise ValueError(
            f"a rank needs {needs / GIB:.1f} GiB, a GPU has {gib:g}: `gesso plan` with the same options and "
            f"--memory {gib:g} names the strategy that fits"
        )


# ---- SLURM ----------------------------------------------------------------------------------------------------------


def job_of(request: Request, trainings: Sequence[Prepared]) -> Job:
    """Completes a request's job with its name and folders; an array's script lies beside the runs.

    Raises:
        ValueError: a path that SLURM cannot write to.
    """
    runs = [training.run.path for training in trainings]
    name = str(trainings[0].cli.config_init.run.name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = runs[0] / "slurm" if len(runs) == 1 else runs[0].parent / f"{name}-array-{stamp}"
    if "\\" in str(folder.absolute()):
        raise ValueError(f"{folder}: SLURM writes no log into a path with a backslash: name another --run.root")
    return replace(request.job, name=name, runs=runs, folder=folder)


def check_job(text: str, environment: Mapping[str, str]) -> None:
    """Asks SLURM whether it accepts a job's script.

    Args:
        text: the script.
        environment: that sbatch gets.

    Raises:
        ValueError: it does not; with SLURM's message.
        FileNotFoundError, ControllerUnreachable: it cannot be asked.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write(text)
        script.flush()
        try:
            queue.slurm("sbatch", "--test-only", script.name, env=environment)
        except queue.ControllerUnreachable:
            raise
        except RuntimeError as error:
            raise ValueError(f"SLURM refuses this job: {error}; `sinfo` shows what there is") from None


def write_and_queue(request: Request, job: Job, trainings: Sequence[Prepared], environment: Mapping[str, str]) -> str:
    """Writes run folders and script, and queues the script; deletes all of them when SLURM refuses.

    Returns:
        Text for the user.
    """
    from launch.training.lightning_cli import save_config

    script = job.folder / "job.sh"
    try:
        for task, training in enumerate(trainings):
            save_config(training.cli, training.run)
            (training.run.path / "slurm").mkdir(exist_ok=True)
            (training.run.path / "logs").mkdir(exist_ok=True)
            training.run.update(
                name=training.run.path.name,
                family=type(training.cli.model).__name__,
                command=job.command,
                created=datetime.now().astimezone().isoformat(timespec="seconds"),
                state="queued",
                total_kimg=training.cli.config_init.run.kimg,
                slurm={"script": str(script), "log": str(job.log(task)), "task": task if job.is_array else None},
            )
        job.folder.mkdir(parents=True, exist_ok=True)
        script.write_text(render(job))
        numbers = _queue_chain(script, request.chain, environment)
    except (OSError, RuntimeError):
        for folder in [job.folder, *(training.run.path for training in trainings)]:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    for task, training in enumerate(trainings):
        for number in numbers:
            note_job(training.run, f"{number}_{task}" if job.is_array else number)
    return _message(job, numbers)


def _queue_chain(script: Path, length: int, environment: Mapping[str, str]) -> list[str]:
    numbers: list[str] = []
    try:
        for _ in range(length):
            after = [f"--dependency=afterany:{numbers[-1]}"] if numbers else []
            numbers.append(queue.submit(script, *after, env=environment))
    except RuntimeError:
        if numbers:
            queue.slurm("scancel", *numbers)
        raise
    return numbers


def _message(job: Job, numbers: Sequence[str]) -> str:
    what = f"job {numbers[0]}" if len(numbers) == 1 else f"jobs {' -> '.join(numbers)}"
    runs = "\n".join(f"  {_short(run)}" for run in job.runs)
    return (
        f"queued {what}: {job.nodes} x {job.tasks_per_node} ranks{f', {len(job.runs)} runs' if job.is_array else ''}\n"
        f"{runs}\n"
        f"follow it with: gesso slurm status, gesso slurm logs {shlex.quote(_short(job.runs[0]))} --follow"
    )


def _short(path: Path) -> str:
    """The path relative to the working directory, if it lies below that."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def carried() -> dict[str, str]:
    """Environment variables that a job needs even where sbatch passes none on: where families of others are found."""
    found = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {"PYTHONPATH": os.pathsep.join(found)} if found else {}


def executable() -> str:
    """The path of this Python environment's ``gesso`` executable."""
    return str(Path(sys.prefix) / "bin" / GESSO)
