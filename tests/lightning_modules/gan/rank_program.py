"""What each rank of `alike.trained_on_two_ranks` runs: ``LOCAL_RANK=r python -m ... OUT JOB``.

The job is a JSON object: ``module`` and ``function``, which makes the family, ``steps``, ``port``, the default
``dtype`` and ``options`` of the Trainer. The first rank writes OUT/trained.pt: the family's state.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from pathlib import Path

import torch

from launch.strategies.ddp import MultiNetworkDDP
from tests.lightning_modules.gan.test_stylegan2 import Data
from tests.trainers import bare_trainer


def main() -> None:
    # A hang tells where it is.
    faulthandler.dump_traceback_later(300, exit=True)
    out, job = Path(sys.argv[1]), json.loads(sys.argv[2])
    os.environ["MASTER_PORT"] = str(job["port"])
    torch.set_default_dtype(getattr(torch, job["dtype"]))
    module = getattr(importlib.import_module(job["module"]), job["function"])()
    trainer = bare_trainer(out, devices=job["ranks"], strategy=MultiNetworkDDP(), **job["options"])
    trainer.fit(module, Data(job["steps"]))
    if trainer.is_global_zero:
        torch.save(module.state_dict(), out / "trained.pt")


if __name__ == "__main__":
    main()
