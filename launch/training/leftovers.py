"""A launcher's environment variables (torchrun, srun), left in the shell of a training of one process."""

from __future__ import annotations

import os

from lightning.pytorch.utilities import rank_zero_only

#: Where Lightning looks for this process's rank when it is imported, in its order.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def check_rank(ranks: int) -> None:
    """Checks that the only process of a training is its first rank, which alone writes the run's files.

    Args:
        ranks: of the training: devices times nodes.

    Raises:
        ValueError: a variable gives another rank; names it and the remedy.
    """
    if ranks > 1:
        return
    there = [name for name in RANK_VARIABLES if name in os.environ]
    rank = int(os.environ[there[0]]) if there else 0
    if rank == 0:
        # Lightning has read it once, maybe before the variable was removed.
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        return
    raise ValueError(
        f"{there[0]}={rank} in the environment makes this process one of several, and this training has one "
        "(trainer.devices x trainer.num_nodes is 1), which would write no config and no report: after torchrun or srun "
        f"`unset {' '.join(there)}`; to train in several processes, set --trainer.devices and --trainer.num_nodes"
    )
