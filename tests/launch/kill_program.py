"""One rank that is started, killed and started again quickly: `kill_program.py RANK` reads its orders from stdin.

Everything slow is imported once, here; each order, a JSON object with ``argv``, ``port`` and ``run``, is carried out by
a fork, which is a process of its own, and which may be killed. Prints its number, and its exit code when it has ended.
"""

from __future__ import annotations

import json
import os
import sys
import traceback


def main() -> None:
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - compiles for seconds when an engine first asks for it
    import wandb  # noqa: F401

    from launch.cli import main as gesso
    from launch.train import build  # noqa: F401

    rank = sys.argv[1]
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            os.environ.update(LOCAL_RANK=rank, NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(order["port"]))
            os.environ["GESSO_RUN"] = order["run"]
            code = 70
            try:
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
                code = gesso(order["argv"])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
