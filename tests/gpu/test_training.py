"""The matrix of trainings: its jobs, what is told of their losses, and that a job which fails stops no other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import training
from tests.gpu.parts import Place

GPU, CPU = Place("gpu", 2, Path("out")), Place("cpu", 1, Path("out"))
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")


def test_the_matrix_has_every_family_strategy_and_precision_once() -> None:
    jobs = [job for group in training.matrix(GPU, ("ddp", *training.ZERO)) for job in group]
    found = [(job["family"], job["strategy"], job["precision"]) for job in jobs]
    precisions = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
    assert sorted(found) == sorted(product(training.FAMILIES, STRATEGIES, precisions))
    assert len({job["name"] for job in jobs}) == len(jobs)
    assert all((job["accelerator"], job["devices"]) == ("gpu", 2) for job in jobs)
    # The most valuable first.
    families = len(training.FAMILIES)
    assert [job["precision"] for job in jobs[: 2 * families]] == ["32-true"] * families + ["bf16-mixed"] * families


def test_a_cpu_trains_every_family_and_under_every_strategy() -> None:
    jobs = [job for group in training.matrix(CPU, STRATEGIES) for job in group if training.is_tiny(job)]
    assert {job["family"] for job in jobs} == set(training.FAMILIES)
    assert {job["strategy"] for job in jobs} == set(STRATEGIES)
    assert {job["precision"] for job in jobs} == set(training.PRECISIONS)


def test_resumed_trainings_go_on_from_what_another_strategy_saved() -> None:
    jobs = training.resuming(CPU)
    saved = {job["name"] for job in jobs if "resume" not in job}
    for job in jobs:
        if "resume" in job:
            before = Path(job["resume"]).name
            assert before in saved
            assert before.removeprefix("saved-") != job["strategy"]
    assert {job["strategy"] for job in jobs} == set(STRATEGIES)


def test_losses_are_apart_by_the_largest_of_their_differences() -> None:
    theirs = [{"loss": 2.0, "small": 0.001}, {"loss": 4.0, "small": 0.0}]
    assert training.apart(theirs, theirs) == 0
    assert training.apart([theirs[0], {"loss": 4.4, "small": 0.0}], theirs) == pytest.approx(0.1)
    # Of a small loss, beside the step's largest.
    assert training.apart([{"loss": 2.0, "small": 0.003}, theirs[1]], theirs) == pytest.approx(0.002 / 0.2)
    assert training.apart([theirs[0], {"loss": float("nan"), "small": 0.0}], theirs) == float("inf")
    assert training.apart(theirs[:1], theirs) == float("inf")


def test_a_job_that_fails_or_takes_its_process_down_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []

    def run_ranks(
        module: str, out: Path, jobs: Sequence[dict[str, Any]], *, ranks: int, fresh: Mapping[str, str]
    ) -> None:
        begun.append([job["name"] for job in jobs])
        for job in jobs:
            if job["name"] == "dies":
                raise RuntimeError("Loading ...\nSegmentation fault\n")
            error = "ValueError: no such option" if job["name"] == "fails" else ""
            # Whole at once, as the program itself does it.
            (tmp_path / "partial").mkdir(exist_ok=True)
            partial = tmp_path / "partial" / job["name"]
            partial.write_text(json.dumps({"error": error, "losses": []}))
            partial.rename(tmp_path / f"{job['name']}.0.json")

    monkeypatch.setattr(training, "run_ranks", run_ranks)
    place = Place("gpu", 1, tmp_path)
    groups = [
        [training.job(place, "vae", "ddp", "32-true", name=name) for name in names]
        for names in (("first", "fails", "dies", "last"), ("alone",))
    ]
    ended = {job["name"]: answer["error"] for job, answer in training.trained(place, groups)}
    assert ended == {
        "first": "",
        "fails": "ValueError: no such option",
        "dies": "Segmentation fault",
        "last": "",
        "alone": "",
    }
    assert ["last"] in begun
