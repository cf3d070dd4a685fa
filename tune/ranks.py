"""The processes of one trial: the first is Ray Tune's worker, the others run in the trial's other resource bundles."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from gesso.common.extras import needing
from launch.training.training import Training
from tune.sweep import Placement

with needing("tune"):
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

#: Environment variables that would make Lightning take a trial for a rank of the job that the sweep runs in.
FOREIGN = (
    *("SLURM_", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE"),
    *("MASTER_", "TORCHELASTIC_", "GESSO_RUN"),
)


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Context manager: sets these environment variables, and removes those that describe another training."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(FOREIGN) and name != "SLURM_CONF"]:
        del os.environ[name]
    os.environ.update(variables)
    # Lightning read its rank when it was imported: in a SLURM job this node's number, which is not the trial's rank.
    rank_zero_only.rank = int(variables.get("RANK", 0))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def printing_to(file: Path) -> Iterator[None]:
    """Context manager: appends this process's output to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def limit_threads(cpus: float) -> None:
    """Limits torch to the number of cores that Ray assigned."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))


class Rank:
    """A rank other than the first, as a Ray actor."""

    def train(self, training: Training, variables: Mapping[str, str], log: Path, cpus: float, states: int) -> None:
        with environment(variables), printing_to(log):
            from tune.reporting import Reporting

            limit_threads(cpus)
            # All ranks take part in saving a state; only the first one reports.
            reporting = Reporting({}, (), states=states, tell=lambda report: None)
            replace(training, callbacks=[reporting]).fit()


@contextlib.contextmanager
def others(placement: Placement, training: Training, run: Path, *, states: int) -> Iterator[dict[str, str]]:
    """Context manager: starts the trial's other ranks and ends them; yields the first rank's environment variables."""
    if placement.ranks == 1:
        yield {}
        return
    group = ray.util.get_current_placement_group()
    assert group is not None
    meeting = _reserved_port()
    rendezvous = {"MASTER_ADDR": ray.util.get_node_ip_address(), "MASTER_PORT": str(meeting.getsockname()[1])}

    def variables(rank: int) -> dict[str, str]:
        # Each rank is a node to Lightning, since Ray lets it see its own GPU alone.
        numbers = {"RANK": rank, "NODE_RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": placement.ranks}
        return {**rendezvous, **{name: str(number) for name, number in numbers.items()}}

    actors: list[Any] = []
    try:
        for rank in range(1, placement.ranks):
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            actor: Any = (
                ray.remote(Rank)
                .options(num_cpus=placement.cpus, num_gpus=placement.gpus, scheduling_strategy=where)
                .remote()
            )
            actors.append(actor)
            actor.train.remote(training, variables(rank), run / "logs" / f"rank{rank}.log", placement.cpus, states)
        yield variables(0)
    finally:
        for actor in actors:
            ray.kill(actor)
        meeting.close()


def _reserved_port() -> socket.socket:
    """A socket whose port goes to nobody else while it is open, but a server that reuses addresses may listen there."""
    reserved = socket.socket()
    reserved.bind(("", 0))
    # Only now: a socket that asked before could be given a port of another one that reuses addresses.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return reserved
