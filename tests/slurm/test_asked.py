"""What is asked of SLURM is read as SLURM reads it, and what cannot be meant is refused where no controller answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launch.training.training import Training
from slurm.asked import Request, array, check_request, seconds
from slurm.script import Job


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("2:00:00", 7200),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-00:00:01", 86_401),
        ("infinite", None),
    ],
)
def test_limits_are_read_as_slurm_reads_them(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


def test_an_array_takes_spans_and_lists() -> None:
    assert array(["seed_everything=2-4", "model.beta=1,0.5"]) == {
        "seed_everything": ["2", "3", "4"],
        "model.beta": ["1", "0.5"],
    }
    with pytest.raises(ValueError, match="OPTION=FIRST-LAST"):
        array(["seed_everything"])
    with pytest.raises(ValueError, match="seed_everything=0-999999999: more than 10,000 runs"):
        array(["seed_everything=0-999999999"])
    with pytest.raises(ValueError, match="40,000 runs, and 10,000 at most can be queued"):
        array(["seed_everything=1-200", "model.beta=" + ",".join(["1"] * 200)])


def check(gpu_memory: float | None = None, **options: Any) -> None:
    folder = Path("runs/a")
    job = Job(name="", runs=[folder], folder=folder, gesso="gesso", command="", **{"signal_lead": 30, **options})
    check_request(Request(job, Training(), gpu_memory=gpu_memory))


@pytest.mark.parametrize("time", ["30", "300:59", "48:59:59", "2-0", "2-23:59", "400-23:59:59", "Infinite"])
@pytest.mark.parametrize("memory", ["0", "2000", "200G", "200gb", "1T"])
def test_right_requests_pass(time: str, memory: str) -> None:
    check(time=time, mem=memory, gpu_memory=80.0, account="lab", gpus_per_node="h100:4")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"time": "99:99:99"}, "--time 99:99:99: write minutes, HH:MM:SS or DAYS-HH:MM:SS"),
        ({"time": "1-24:00:00"}, "--time 1-24:00:00: write"),
        ({"time": "٣٠"}, "--time ٣٠: write"),
        ({"mem": "lots"}, "--mem lots: write a number and its unit, such as 200G"),
        ({"mem": "-1G"}, "--mem -1G: write"),
        ({"gpu_memory": float("nan")}, "--gpu-memory nan: must be a number of GiB, more than 0"),
        ({"gpu_memory": float("inf")}, "--gpu-memory inf: must be"),
        ({"gpu_memory": 0.0}, "--gpu-memory 0: must be"),
        ({"account": ""}, "--account is empty: give it a value, or leave it out"),
        ({"partition": " "}, "--partition is empty"),
        ({"time": ""}, "--time is empty"),
        ({"gpus_per_node": "four"}, "--gpus-per-node four: write a number"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}"):
        check(**options)
