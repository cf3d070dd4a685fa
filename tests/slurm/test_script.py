"""The rendered scripts, word for word, and what a real sbatch says. `GESSO_WRITE_GOLDEN=1` writes them anew."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slurm.script import Job, directives, render
from tests.slurm.lab import brought_up, possible

GOLDEN = Path(__file__).with_name("golden")
RUNS = Path("/scratch/lab/runs")


def job(name: str, run: str, **options: object) -> Job:
    folder = RUNS / run
    shared = {"name": name, "runs": [folder], "folder": folder / "slurm", "gesso": "/home/ada/gesso/.venv/bin/gesso"}
    return Job(**{**shared, "command": f"gesso slurm submit ... -- fit --config {name}", **options})  # type: ignore[arg-type]


JOBS = {
    "one-node": job("mnist-dcgan", "a", gpus_per_node="1", time="2:00:00", partition="gpu"),
    "four-nodes": job(
        "cifar10-dcgan",
        "b",
        nodes=4,
        gpus_per_node="8",
        tasks_per_node=8,
        cpus_per_task=8,
        mem="400G",
        time="1-12:00:00",
        partition="gpu",
        account="vision",
        env_setup=["module load cuda/13.0", "source /home/ada/gesso/.venv/bin/activate"],
        env={"NCCL_SOCKET_IFNAME": "ib0", "WANDB_MODE": "offline"},
        extra=["--exclusive"],
    ),
    "cpu": job("mnist-vae", "c", nodes=2, tasks_per_node=2, cpus_per_task=4, time="90"),
    "array": job(
        "seeds",
        "d",
        runs=[RUNS / f"seeds-{n}" for n in range(3)],
        folder=RUNS / "seeds-array",
        gpus_per_node="1",
        array_limit=2,
    ),
    "staged": job("mnist-dcgan", "h", nodes=2, tasks_per_node=4, gpus_per_node="4", stage="$TMPDIR"),
    "chain": job("mnist-dcgan", "e", gpus_per_node="1", time="30", partition="short", dependency="singleton"),
    "container": job(
        "mnist-dcgan",
        "f",
        gpus_per_node="2",
        tasks_per_node=2,
        gesso="gesso",
        container="/scratch/images/gesso.sif",
        mounts=["/scratch/lab", "/data:/data:ro"],
    ),
    "pyxis": job(
        "mnist-dcgan",
        "g",
        gpus_per_node="1",
        gesso="gesso",
        container="docker://lab/gesso",
        mounts=["/scratch:/scratch"],
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_scripts_are_what_was_agreed(name: str) -> None:
    file, script = GOLDEN / f"{name}.sh", render(JOBS[name])
    if os.environ.get("GESSO_WRITE_GOLDEN"):
        file.write_text(script)
    assert script == file.read_text()
    # Syntax alone; nothing is run.
    subprocess.run(["bash", "-n", str(file)], check=True)


def test_a_command_of_several_lines_stays_a_comment() -> None:
    script = render(replace(JOBS["cpu"], command="gesso slurm submit -- fit '--run.name=a\nrm -rf /'"))
    comments = [line for line in script.splitlines() if line.startswith("# ")]
    assert comments[:2] == ["# gesso slurm submit -- fit '--run.name=a", "# rm -rf /'"]
    assert "\nrm -rf" not in script


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("gpu", "gpu"),
        ("my runs", '"my runs"'),
        ("#1", '"#1"'),
        ('say "a\\b"', '"say \\"a\\\\b\\""'),
        ("it's", '"it\'s"'),
    ],
)
def test_values_of_directives_are_quoted_where_sbatch_needs_it(value: str, line: str) -> None:
    assert f"#SBATCH --comment={line}" in [
        text.replace("--partition", "--comment") for text in directives(replace(JOBS["cpu"], partition=value))
    ]


def test_percent_signs_of_a_folder_are_no_patterns() -> None:
    odd = replace(JOBS["cpu"], folder=Path("/runs/50%j/slurm"), runs=[Path("/runs/50%j")])
    assert "#SBATCH --output=/runs/50%%j/slurm/job.log" in directives(odd)
    script = render(odd)
    lines = script[script.index("run=") : script.index("MASTER_ADDR")]
    said = subprocess.run(["bash", "-c", f"{lines}\necho $logs"], capture_output=True, text=True, check=True).stdout
    assert said == "/runs/50%%j/logs\n"


@pytest.fixture(scope="module")
def large() -> Iterator[dict[str, str]]:
    """Four virtual nodes that claim eight GPUs each, and the partitions of the scripts."""
    if not possible():
        pytest.skip("a SLURM of one's own needs root and Debian's packages")
    with brought_up(nodes=4, gpus=8, cpus=64, memory=512_000, partitions=("gpu", "short")) as environment:
        yield environment


@pytest.mark.slurm
@pytest.mark.xdist_group("large")  # one worker's, that there be one cluster
@pytest.mark.parametrize("name", JOBS)
def test_sbatch_takes_them(name: str, large: dict[str, str]) -> None:
    command = ["sbatch", "--test-only", str(GOLDEN / f"{name}.sh")]
    done = subprocess.run(command, env={**os.environ, **large}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shape = JOBS[name]
    assert f"using {shape.nodes * shape.tasks_per_node * (shape.cpus_per_task or 1)} processors" in done.stderr or (
        "--exclusive" in shape.extra
    ), done.stderr
