"""Every family under every strategy and precision, and the options of training, against the CPU's losses."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.gpu.parts import Place, last_line
from tests.gpu.rows import Row
from tests.launch.strategies.ranks import run_ranks

Job = dict[str, Any]
#: How a job has ended: ``error`` ("" or its last line) and ``losses`` of each step.
Answer = dict[str, Any]

#: Of `rank_program`; the first has a penalty of gradients' gradients, the second attention and spectral norm; of the
#: diffusion models, the first is a U-Net, the second a transformer.
FAMILIES = ("r1", "spectral", "vae", "edm", "flow", "adain", "fast_style")
ZERO = ("zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")
#: The most valuable first, since a device may be taken away.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
STEPS = 4
#: How far a loss may be from the CPU's in fp32, of the loss; a GPU's convolutions round to TF32.
TOLERANCES = {"32-true": 0.01, "bf16-mixed": 0.1, "16-mixed": 0.1, "bf16-true": 0.2}
#: Compared with the CPU's own 16-mixed, for the first loss scale is too large and updates are skipped; the encoders of
#: the others take a CPU too long in 16 bits.
OWN_FP16 = ("r1", "spectral", "vae", "edm", "flow")
#: A training that goes on under another strategy: saved by one, resumed by the other.
RESUMES = (
    ("ddp", "zero3"),
    ("zero3", "ddp"),
    ("zero2", "zero1"),
    ("zero1", "zero2_offload"),
    ("zero2_offload", "zero3_offload"),
    ("zero3_offload", "ddp"),
)
#: Options of training, which change no loss but the last.
OPTIONS: dict[str, Job] = {
    "gradient checkpointing": {"gradient_checkpointing": True},
    "micro-batches": {"micro_batches": 2},
    "synchronised batch norm": {"family": "conditional", "sync_batchnorm": True},
    "compiled": {"compile": True},
}


# ---- jobs -----------------------------------------------------------------------------------------------------------


def job(place: Place, family: str, strategy: str, precision: str, **more: Any) -> Job:
    """A few steps of a family, as `rank_program` wants it."""
    where = {"accelerator": place.accelerator, "devices": place.devices, "into": str(place.out)}
    what = {"family": family, "strategy": strategy, "precision": precision, "until": STEPS}
    return {"name": f"{family}-{strategy}-{precision}", **what, **where, **more}


def matrix(place: Place, strategies: Sequence[str]) -> list[list[Job]]:
    """Jobs of each strategy: every family at every precision."""
    return [
        [job(place, family, strategy, precision) for precision in PRECISIONS for family in FAMILIES]
        for strategy in strategies
    ]


def reference(place: Place, family: str, precision: str = "32-true", **more: Any) -> Job:
    """The same training on one rank of the CPU."""
    return job(Place("cpu", 1, place.out), family, "ddp", precision, name=f"cpu-{family}-{precision}", **more)


def is_tiny(wanted: Job) -> bool:
    """Whether a CPU without a GPU runs it: each family, each strategy and each precision at least once."""
    if wanted["strategy"] == "ddp":
        return wanted["precision"] == "32-true" or wanted["family"] in ("r1", "vae")
    return wanted["family"] == "vae" and (wanted["precision"] == "32-true" or wanted["strategy"] == "zero2")


# ---- parts ----------------------------------------------------------------------------------------------------------


def train_ddp(place: Place) -> Iterator[Row]:
    """Every family at every precision under ddp."""
    yield from trained_matrix("train_ddp", place, ("ddp",))


def train_zero(place: Place) -> Iterator[Row]:
    """Every family at every precision under every stage of ZeRO."""
    yield from trained_matrix("train_zero", place, ZERO)


def trained_matrix(part: str, place: Place, strategies: Sequence[str]) -> Iterator[Row]:
    """Trains, and compares with the CPU; what is too much for a CPU is skipped by name."""
    wanted = references(place)
    groups = matrix(place, strategies)
    # A GPU has room, and its machine cores, for several strategies at once.
    chosen = groups if place.cuda else [[job for group in groups for job in group if is_tiny(job)]]
    for found, answer in trained(place, chosen):
        yield compared(part, f"{found['family']}, {found['strategy']}", found, answer, wanted)
    for left in (job for group in groups for job in group if not place.cuda and not is_tiny(job)):
        what = f"{left['family']} {left['precision']}"
        yield Row(part, f"{left['strategy']}, too much here", what, "skipped", detail="not in the tiny run of a CPU")


def options(place: Place) -> Iterator[Row]:
    """Options of training, then a training that goes on under another strategy."""
    part = "options"
    wanted = references(place)
    precision = "bf16-mixed" if place.cuda else "32-true"
    jobs, names = [], {}
    for what, option in OPTIONS.items():
        for strategy in ("ddp", "zero2") if "compile" not in option else ("ddp",):
            made = {**job(place, option.get("family", "vae"), strategy, precision), **option}
            made["name"] = f"{what.replace(' ', '-')}-{strategy}"
            jobs.append(made)
            names[made["name"]] = what
    if not place.cuda:
        yield Row(part, "compiled", "ddp", "skipped", detail="takes a compiler a minute on a CPU")
        jobs = [made for made in jobs if "compile" not in made]
    resumes = resuming(place)
    for found, answer in trained(place, [jobs, resumes] if place.cuda else [[*jobs, *resumes]]):
        if found["name"] in names:
            row = compared(part, names[found["name"]], found, answer, wanted)
            yield replaced_variant(row, found["strategy"])
        elif "resume" in found:
            saved_by = Path(found["resume"]).name.removeprefix("saved-")
            row = compared(part, "resumed under another strategy", found, answer, wanted, last=STEPS // 2)
            yield replaced_variant(row, f"{saved_by} to {found['strategy']}")
        elif answer["error"]:
            yield Row(part, "saved for another strategy", found["strategy"], "failed", detail=answer["error"])


def resuming(place: Place) -> list[Job]:
    """Half of a training under each strategy that saves, then the other half under another."""
    saved_by = dict.fromkeys(first for first, _ in RESUMES)
    halves = [
        job(place, "vae", strategy, "32-true", name=f"saved-{strategy}", until=STEPS // 2, keep=True)
        for strategy in saved_by
    ]
    return [
        *halves,
        *(
            job(place, "vae", then, "32-true", name=f"{first}-to-{then}", resume=str(place.out / f"saved-{first}"))
            for first, then in RESUMES
        ),
    ]


def replaced_variant(row: Row, variant: str) -> Row:
    return Row(row.part, row.name, variant, row.state, row.value, row.unit, row.detail)


# ---- comparing ------------------------------------------------------------------------------------------------------


def references(place: Place) -> dict[str, list[dict[str, float]]]:
    """The CPU's losses of each step, by family (and precision); they are computed once, and kept in the folder."""
    file = place.out / "references.json"
    if not file.is_file():
        jobs = [reference(place, family) for family in FAMILIES]
        jobs.append(reference(place, "conditional", sync_batchnorm=True))
        jobs += [reference(place, family, "16-mixed") for family in OWN_FP16]
        # With a GPU there are cores for several at once.
        groups = [jobs[first::3] for first in range(3)] if place.cuda else [jobs]
        losses = {compared_with(made): answer["losses"] for made, answer in trained(place, groups)}
        # One that failed fails the comparisons with itself alone.
        file.write_text(json.dumps(losses))
    return json.loads(file.read_text())


def compared_with(found: Job) -> str:
    """The name of the CPU's losses that a job is compared with."""
    own = found["precision"] == "16-mixed" and found["family"] in OWN_FP16
    return f"{found['family']}, 16-mixed" if own else found["family"]


def compared(
    part: str, name: str, found: Job, answer: Answer, references: dict[str, list[dict[str, float]]], last: int = STEPS
) -> Row:
    """How far the job's losses are from the CPU's, of which the last steps count; or that it failed."""
    precision, wanted = found["precision"], references[compared_with(found)]
    if answer["error"]:
        return Row(part, name, precision, "failed", detail=answer["error"])
    if not wanted:
        return Row(part, name, precision, "failed", detail="the CPU's own training failed")
    away = apart(answer["losses"], wanted[-last:])
    state, detail = "ok", ""
    if not away <= TOLERANCES[precision]:
        state, detail = "failed", f"{precision}: {away:.2g} from the CPU's losses, {TOLERANCES[precision]} allowed"
    # JSON knows no infinity.
    value = away if math.isfinite(away) else None
    return Row(part, name, precision, state, value, "apart", detail)  # type: ignore[arg-type]


def apart(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """The largest difference of two losses over the larger of that loss and a tenth of its step's largest."""
    if len(ours) != len(theirs) or any(a.keys() != b.keys() for a, b in zip(ours, theirs, strict=True)):
        return math.inf
    worst = 0.0
    for found, wanted in zip(ours, theirs, strict=True):
        largest = max(map(abs, wanted.values()))
        for name, value in wanted.items():
            away = abs(found[name] - value) / max(abs(value), 0.1 * largest, 1e-12)
            worst = max(worst, away) if math.isfinite(away) else math.inf
    return worst


# ---- running --------------------------------------------------------------------------------------------------------


def trained(place: Place, groups: Sequence[Sequence[Job]]) -> Iterator[tuple[Job, Answer]]:
    """Runs groups of jobs at the same time, those of a group one after the other, on fresh processes.

    Returns:
        Each job, as soon as it has ended, with its answer.
    """
    ended: queue.Queue[tuple[Job, Answer] | None] = queue.Queue()

    def work(group: Sequence[Job]) -> None:
        waiting = list(group)
        try:
            while waiting:
                waiting = _run(place, waiting, ended)
        except Exception as error:
            for left in waiting:
                ended.put((left, {"error": last_line(error), "losses": []}))
        finally:
            ended.put(None)

    threads = [threading.Thread(target=work, args=[group], daemon=True) for group in groups if group]
    for thread in threads:
        thread.start()
    working = len(threads)
    while working:
        told = ended.get()
        if told is None:
            working -= 1
        else:
            yield told


def _run(place: Place, jobs: list[Job], ended: queue.Queue[tuple[Job, Answer] | None]) -> list[Job]:
    """Runs jobs until one takes its process down; which are left."""
    folder = place.out / f"of-{jobs[0]['name']}"
    folder.mkdir(parents=True, exist_ok=True)
    died: list[str] = []

    def ranks() -> None:
        try:
            run_ranks("tests.gpu.train_program", folder, jobs, ranks=jobs[0]["devices"], fresh={})
        except Exception as error:
            died.append(last_line(str(error)))

    thread = threading.Thread(target=ranks, daemon=True)
    thread.start()
    left, error = list(jobs), ""
    while left:
        # Asked before the answer is looked for: a process writes before it ends.
        alive = thread.is_alive()
        answer = place.out / f"{left[0]['name']}.0.json"
        if answer.is_file():
            told = json.loads(answer.read_text())
            error = told["error"]
            ended.put((left.pop(0), told))
        elif not alive:
            break
        else:
            thread.join(0.2)
    thread.join()
    # An error that was told may have been the process's end; else what took it down is the job that has no answer.
    if left and not error:
        ended.put((left.pop(0), {"error": died[0] if died else "its process ended", "losses": []}))
    return left
