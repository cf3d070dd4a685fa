"""`gesso slurm submit`: what is wrong is said before anything waits in the queue."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from gesso.cli.main import main
from launch.runs.folder import RunFolder
from slurm import queue
from slurm.attempts import attempts, submitted
from tests.slurm.lab import Lab, attempt_of, finished, job, slurm, wait
from tests.slurm.witness import steps

BAD = {
    "unknown partition": (["--partition=nowhere"], [], "nvalid partition"),
    "too many nodes": (["--nodes=50"], ["--data.global_batch_size=50"], "SLURM refuses this job"),
    "too many GPUs": (["--gpus-per-node=9"], ["--data.global_batch_size=9"], "SLURM refuses this job"),
    "no such GPUs": (["--gpus-per-node=h100:1"], [], "SLURM refuses this job"),
    "impossible memory": (["--mem=100T"], [], "SLURM refuses this job"),
    "invalid time": (["--time=tomorrow"], [], "--time tomorrow"),
    "too short": (["--time=1"], [], "--signal-lead"),
    "no ranks": (["--nodes=0"], [], "--nodes 0"),
    "GPUs in words": (["--gpus-per-node=some"], [], "--gpus-per-node some"),
    "two lines in a name": (["--partition=a\nb"], [], "--partition 'a\\nb'"),
    "variable without value": (["--env=NCCL_DEBUG"], [], "NAME=VALUE"),
    "unknown option of the recipe": ([], ["--model.widht=3"], "widht"),
    "wrong type": ([], ["--model.generator.width=wide"], "width"),
    "no such data": ([], ["--data.path=/nowhere/shards"], "/nowhere/shards"),
    "data of another kind": ([], ["--model.channels=3"], "channels"),
    "uneven batch": (["--nodes=2", "--tasks-per-node=3"], [], "global_batch_size"),
    "a metric never measured": ([], ["--checkpoints.monitor=fid"], "checkpoints.monitor"),
    "too large for the GPU": (["--gpus-per-node=1", "--gpu-memory=0.001"], [], "gesso plan"),
}


def untouched(lab: Lab, before: str) -> bool:
    """Whether nothing was queued and nothing written."""
    return not lab.root.exists() and slurm("squeue", "--noheader", "--states=all") == before


@pytest.mark.slurm
@pytest.mark.parametrize("name", BAD)
def test_bad_requests_end_in_one_line(name: str, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    options, overrides, says = BAD[name]
    before = slurm("squeue", "--noheader", "--states=all")
    assert main(["slurm", "submit", "--trust-paths", *options, "--", *lab.training(), *overrides]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert untouched(lab, before)


@pytest.mark.slurm
def test_a_data_set_on_this_machine_alone_is_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    before = slurm("squeue", "--noheader", "--states=all")
    assert main(["slurm", "submit", "--", *lab.training()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "this data set lies under /tmp" in line
    assert untouched(lab, before)


@pytest.mark.slurm
def test_without_sbatch_the_script_can_be_looked_at(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["slurm", "submit", "--trust-paths", "--", *lab.training()]) == 2
    assert "sbatch not found" in capsys.readouterr().err
    assert main(["slurm", "submit", "--trust-paths", "--dry-run", "--", *lab.training()]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH --job-name=mnist-dcgan\n")
    assert not lab.root.exists()


@pytest.mark.slurm
def test_site_defaults(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    home = tmp_path / "config" / "gesso" / "slurm.yaml"
    home.parent.mkdir(parents=True)
    home.write_text("partition: urgent\nsignal-lead: 30\ntrust_paths: true\nenv: {NCCL_DEBUG: WARN}\n")
    Path("slurm.yaml").write_text("partition: grace\nenv-setup: ['module load cuda']\n")
    assert main(["slurm", "submit", "--dry-run", "--signal-lead=20", "--", *lab.training()]) == 0
    script = capsys.readouterr().out
    # The command line before the project's file, before the user's.
    for line in ("#SBATCH --partition=grace", "#SBATCH --signal=USR1@20", "module load cuda", "export NCCL_DEBUG=WARN"):
        assert f"\n{line}\n" in script
    Path("slurm.yaml").write_text("partitoin: grace\n")
    assert main(["slurm", "submit", "--dry-run", "--", *lab.training()]) == 2
    assert "slurm.yaml: no option 'partitoin'" in capsys.readouterr().err


@pytest.mark.slurm
def test_where_python_finds_families_goes_with_the_job(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["mine", "/opt/theirs"]))
    assert main(["slurm", "submit", "--trust-paths", "--dry-run", "--", *lab.training()]) == 0
    assert f"\nexport PYTHONPATH={Path.cwd() / 'mine'}:/opt/theirs\n" in capsys.readouterr().out


@pytest.mark.slurm
@pytest.mark.slow
def test_a_run_trains_whatever_its_folder_is_called(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    odd = Lab(lab.shards, lab.root.with_name("50 %j #1 'a' \"b\""))
    run = odd.submit(odd.training("--run.kimg=0.4"))
    wait(lambda: finished(run), 120, "the run's end", of=run)
    assert run.info()["state"] == "finished"
    assert {file.name for file in (run.path / "logs").iterdir()} == {"rank0.log"}
    assert (run.path / "slurm" / "job.log").is_file()
    slashed = Lab(lab.shards, lab.root.with_name("a\\b"))
    assert main(["slurm", "submit", "--dry-run", "--trust-paths", "--", *slashed.training()]) == 2
    assert "SLURM writes no log into a path with a backslash" in capsys.readouterr().err


@pytest.mark.slurm
def test_the_run_folder_says_what_waits(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run = lab.submit(lab.training(), "--gpus-per-node=2", "--nodes=2", "--dependency=singleton", "--sbatch=--hold")
    number = submitted(run)[0]
    assert f"queued job {number}: 2 x 2 ranks" in capsys.readouterr().out
    trainer = yaml.safe_load(run.config.read_text())["trainer"]
    assert (trainer["devices"], trainer["num_nodes"], trainer["accelerator"]) == (2, 2, "gpu")
    assert run.info()["state"] == "queued"
    assert main(["slurm", "status", str(run.path)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if run.path.name in line]
    assert row.split()[1:5] == [number, "pending", "0", "0/3.2"]
    assert main(["slurm", "resume", str(run.path)]) == 2
    assert f"job {number} waits or runs already" in capsys.readouterr().err
    assert main(["slurm", "cancel", str(run.path)]) == 0
    assert run.info()["state"] == "cancelled"
    wait(lambda: not job(run).alive, 20, "a cancelled job to leave the queue")


@pytest.mark.slurm
@pytest.mark.slow
def test_an_array_of_seeds_and_a_chain(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    training = lab.training("--run.kimg=6.4")
    command = [
        "slurm",
        "submit",
        "--trust-paths",
        "--array=seed_everything=3,4",
        "--array-limit=2",
        "--cpus-per-task=1",
    ]
    assert main([*command, "--name=seeds", "--", *training, "--run.kimg=1.6"]) == 0
    seeds = [RunFolder(path) for path in sorted(lab.root.glob("seeds-*-[01]"), key=lambda path: path.name[-1])]
    assert [submitted(run)[0].partition("_")[2] for run in seeds] == ["0", "1"]
    chained = lab.submit(training, "--chain=2", "--cpus-per-task=1", f"--stage={tmp_path / 'disk'}")
    first, second = submitted(chained)

    wait(lambda: steps(chained.path, 0), 120, "the chain's first step", of=chained, every=0.05)
    queue.slurm("scancel", "--signal=USR1", first)
    wait(lambda: queue.jobs([first])[first].state == "COMPLETED", 60, "the first job to pass on", of=chained)
    for run in (*seeds, chained):
        wait(lambda run=run: finished(run), 180, run.path.name, of=run)
        assert run.info()["state"] == "finished"
    assert [yaml.safe_load(run.config.read_text())["seed_everything"] for run in seeds] == [3, 4]
    assert [attempt.decision for attempt in attempts(chained)] == ["pass", "stop"]
    assert [attempt.job for attempt in attempts(chained)] == [first, second]
    assert attempt_of(chained) == 0
    assert [step["images_seen"] for step in steps(chained.path, 0)] == list(range(16, 6416, 16))

    assert "staged 9 of 9 training shards" in (chained.path / "logs" / "stage-node0.log").read_text()

    # Requeued or resumed, what has finished stays finished.
    assert main(["slurm", "resume", str(chained.path)]) == 2
    assert "has finished" in capsys.readouterr().err
    queue.slurm("scontrol", "requeue", second)
    wait(lambda: attempt_of(chained) == 1 and finished(chained), 90, "a finished job to come and go", of=chained)
    assert len(steps(chained.path, 0)) == 400
    assert main(["slurm", "logs", str(chained.path)]) == 0
    assert "has finished" in capsys.readouterr().out


def test_nothing_of_gesso_needs_slurm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "slurm" in capsys.readouterr().out
    assert "SLURM_JOB_ID" not in os.environ
