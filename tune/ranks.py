"""The processes of one trial: the first is Ray Tune's own, the others lie in the trial's other bundles."""

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

#: What would make Lightning take a trial for a rank of the training that surrounds the sweep.
FOREIGN = (
    *("SLURM_", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE"),
    *("MASTER_", "TORCHELASTIC_", "GESSO_RUN"),
)


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, this process has these variables, and none that speak of another training."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(FOREIGN) and name != "SLURM_CONF"]:
        del os.environ[name]
    os.environ.update(variables)
    # Lightning has asked for it when it was imported, and so for this node's number among the nodes of SLURM's job.
    rank_zero_only.rank = int(variables.get("RANK", 0))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def printing_to(file: Path) -> Iterator[None]:
    """Inside, what this process prints goes into a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", buffering=1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def limit_threads(cpus: float) -> None:
    """Lets torch use as many cores as Ray has promised."""
    import torch

    torch.set_num_threads(max(1, int(cpus)))


class Rank:
    """A rank but the first, as an actor of Ray's."""

    def train(self, training: Training, variables: Mapping[str, str], log: Path, cpus: float, states: int) -> None:
        with environment(variables), printing_to(log):
            from tune.reporting import Reporting

            limit_threads(cpus)
            # Saving a state takes all ranks; what they would report, the first one does.
            reporting = Reporting({}, (), states=states, tell=lambda report: None)
            replace(training, callbacks=[reporting]).fit()


@contextlib.contextmanager
def others(placement: Placement, training: Training, run: Path, *, states: int) -> Iterator[dict[str, str]]:
    """Starts the other ranks of this trial, which end with it; gives the first rank's environment."""
    if placement.ranks == 1:
        yield {}
        return
    group = ray.util.get_current_placement_group()
    assert group is not None
    rendezvous = {"MASTER_ADDR": ray.util.get_node_ip_address(), "MASTER_PORT": str(_free_port())}

    def variables(rank: int) -> dict[str, str]:
        # To Lightning each rank is a node of its own: Ray shows it no more than its own GPU.
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
