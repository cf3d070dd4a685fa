"""Runs a sweep on Ray: on a local Ray that ends with the sweep, or on a running cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

# Ray reads these when it is imported. Its loggers are off, as a sweep writes files of its own; and a stopped trial gets
# time to write its report.
os.environ.update(
    {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The older output obeys verbose=0.
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
)


from gesso.common.extras import needing
from tune.checks import check_room
from tune.kept import needed
from tune.nodes import PATIENCE
from tune.schedule import scheduler
from tune.search import Search
from tune.sweep import Placement, Sweep
from tune.trial import run_trial
from tune.watch import Row, Watch, read_rows

with needing("tune"):
    import ray
    from ray import tune
    from ray.tune.execution.placement_groups import PlacementGroupFactory


@contextlib.contextmanager
def cluster(placement: Placement, address: str | None = None, *, nodes: int = 1) -> Iterator[None]:
    """Context manager: connects to the Ray cluster at ``address``, or runs one on this machine.

    Args:
        placement: the resources of a trial.
        address: of a running cluster; None: start one.
        nodes: number of nodes to wait for.

    Raises:
        TimeoutError: not all nodes have joined in time.
        ValueError: the cluster has no room for a trial.
    """
    names = ("TUNE_FUNCTION_THREAD_TIMEOUT_S", "RAY_CHDIR_TO_TRIAL_DIR", "WANDB_MODE", "WANDB_API_KEY", "GESSO_CACHE")
    variables = {name: os.environ[name] for name in names if name in os.environ}
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **local,
        )
    try:
        check_room(placement, [node["Resources"] for node in _alive(nodes)])
        yield
    finally:
        ray.shutdown()


def _alive(count: int) -> list[dict[str, Any]]:
    """Waits until ``count`` nodes have joined Ray, and returns the nodes."""
    deadline = time.monotonic() + PATIENCE
    while len(alive := [node for node in ray.nodes() if node["Alive"]]) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(alive)} of {count} nodes have come to Ray within {PATIENCE:.0f} s")
        time.sleep(0.5)
    return alive


def run(sweep: Sweep) -> list[Row]:
    """Runs a sweep, or continues a stopped one, inside of ``cluster``, until it is finished or a signal comes.

    Returns:
        All trials.
    """
    # The table shows interrupted trials already.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Ray's state of a stopped sweep is not used: the list of trials and their run folders hold everything.
    shutil.rmtree(sweep.ray, ignore_errors=True)
    with stopping_on_sigterm(), warnings.catch_warnings():
        # PB2's Gaussian process warns at each fit that it has few trials to learn from.
        warnings.filterwarnings("ignore", module="sklearn")
        tuner(sweep).fit()
    return read_rows(sweep)


def tuner(sweep: Sweep) -> tune.Tuner:
    """Ray's Tuner for the trials of a sweep that have not ended."""
    trainable: Any = partial(run_trial, folder=str(sweep.path))
    trainable.__name__ = "trial"
    # Trials are drawn ahead where they do not depend on earlier ones: a worker may take longer to start than a trial
    # takes, and must not lose its trial to a worker that is ready.
    ahead = sweep.search == "random" and sweep.scheduler == "none"
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "16" if ahead else "1"
    search = Search(sweep)
    return tune.Tuner(
        tune.with_resources(trainable, PlacementGroupFactory(sweep.placement.bundles(), strategy="PACK")),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler(sweep, search),
            # Imports may take longer than a trial. Processes that were ranks of one trial are not used again.
            reuse_actors=sweep.placement.ranks == 1,
        ),
        run_config=tune.RunConfig(
            name=sweep.ray.name,
            storage_path=str(sweep.ray.parent),
            callbacks=[Watch(sweep)],
            # PBT may copy a state from before a trial's last report.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=max(1, needed(sweep))),
            verbose=0,
        ),
    )


@contextlib.contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Context manager: SIGTERM saves and stops the sweep, as Ray Tune does at SIGUSR1 and Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
