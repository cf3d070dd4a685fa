"""A sweep on a real SLURM of two nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gesso.cli.main import main
from slurm import queue
from tests.slurm.lab import CLUSTER, brought_up, possible, wait
from tests.tune.lab import Lab
from tune.journal import Journal
from tune.sweep import open_sweep
from tune.watch import read_rows

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.mark.skipif(not possible(), reason="a SLURM of one's own needs root and Debian's packages")
def test_trials_on_both_nodes_survive_a_preemption(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with brought_up(gpus=0) as environment:
        for name, value in {**environment, "PYTHONPATH": str(CLUSTER.parents[2])}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        # More to do than one node has done before the other's worker has started.
        space = lab.space(first="grid([0.5, 1.0, 2.0, 3.0, 4.0, 5.0])")
        command = lab.arguments(space, "--num-samples=1", "--run.kimg=2.4", "--evaluation.every_kimg=0.24")
        # A trial takes all of a node's cores.
        asked = ["--slurm", "--nodes=2", "--cpus-per-task=4", "--cpus-per-trial=4", "--trust-paths"]
        assert main([*command, *asked]) == 0
        number = re.search(r"queued job (\d+)", capsys.readouterr().out)[1]  # type: ignore[index]
        (path,) = (tmp_path / "sweeps").iterdir()
        sweep = open_sweep(path)

        def told() -> str:
            return "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted((path / "logs").iterdir()))

        def reports() -> list[int]:
            return [len(Journal(run).read()) for run in sorted(sweep.trials.glob("*"))]

        def state() -> str:
            return queue.jobs([number])[number].state

        wait(lambda: len([n for n in reports() if n]) >= 2 or state() in ("COMPLETED", "FAILED"), 200, "two at work")
        assert state() == "RUNNING", told()
        before = dict(zip(sorted(sweep.trials.glob("*")), reports(), strict=True))
        # Preempted: the driver saves, and the job comes back by itself.
        queue.slurm("scancel", "--signal=TERM", number)
        wait(lambda: " Restarts=1 " in queue.slurm("scontrol", "--oneliner", "show", "job", number), 120, "coming back")
        wait(lambda: state() == "COMPLETED", 400, "the end")
        rows = read_rows(sweep)
        assert [row.state for row in rows] == ["finished"] * 6, told()
        # On either node a trial's run folder is whole.
        for row in rows:
            run = sweep.trials / row.id
            assert [name for name in ("config.yaml", "metrics.csv", "report.html") if not (run / name).is_file()] == []
            assert json.loads((run / "run.json").read_text())["state"] == "finished"
        # What had been reported was not done again.
        for run, count in before.items():
            images = [report.images_seen for report in Journal(run).read()]
            assert len(images) == 10 >= count
            assert images == sorted(set(images))
        nodes = {
            name
            for row in rows
            for name in re.findall(r"^on (node\d)$", (sweep.trials / row.id / "logs" / "rank0.log").read_text(), re.M)
        }
        assert nodes == {"node1", "node2"}
        assert (path / "report.html").is_file()
        assert (path / "best.yaml").is_file()
