"""FID against evaluations of the network, on MNIST: a diffusion model, what is distilled from it, and rivals.

    python -m tests.benchmarks.few_steps [--folder FOLDER] [--samples 5000] [--reference-samples N] [--kimg-scale 1.0]
        [--evaluations 1000]

Trains the recipes ``mnist-edm``, ``mnist-flow`` and ``mnist-dcgan``, then ``mnist-edm-fewstep`` and
``mnist-edm-progressive`` with the first one as their teacher, and ``mnist-meanflow``; what FOLDER holds already is not
trained again. Every figure is FID in MobileNetV2's features of so many samples against all training images, with the
averaged weights and seed 0; the teacher's images and seconds stand beside the students'. Some hours on two cores;
``--samples 1000 --reference-samples 2000 --evaluations 50`` an hour.
Figures go to ``results/few_steps.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gesso.common.strict_yaml import load_yaml
from launch.report.record import sampling_in_words
from launch.runs.machine import processor
from launch.training.recipes import resolve_recipe

RESULTS = Path(__file__).parent / "results" / "few_steps.json"


@dataclass(frozen=True)
class Contestant:
    """A recipe, its teacher's, and how it is sampled: options of ``gesso evaluate`` beside a cap on the samples."""

    recipe: str
    teacher: str | None
    samplings: Sequence[tuple[dict[str, object], int]]


FULL, FEW, FEWEST = 5000, 2000, 500


def sampled(sampler: str, steps: int, most: int = FULL) -> tuple[dict[str, object], int]:
    return {"sampler": sampler, "steps": steps}, most


CONTESTANTS = (
    Contestant("mnist-dcgan", None, [({}, FULL)]),
    Contestant(
        "mnist-flow",
        None,
        [sampled("heun", 10), *(sampled("dpmpp-2m", steps) for steps in (8, 4)), sampled("euler", 4)],
    ),
    Contestant(
        "mnist-edm",
        None,
        [
            # A thousand steps of 5,000 samples would take hours.
            sampled("ddpm", 1000, FEWEST),
            sampled("euler", 250, FEW),
            sampled("heun", 18),
            sampled("euler", 18),
            sampled("dpmpp-2m", 18),
            sampled("dpmpp-2m", 8),
            sampled("euler", 4),
            sampled("euler", 2),
            sampled("euler", 1),
        ],
    ),
    Contestant("mnist-edm-progressive", "mnist-edm", [sampled("ddim", steps) for steps in (4, 2, 1)]),
    Contestant("mnist-edm-fewstep", "mnist-edm", [sampled("consistency", steps) for steps in (4, 2, 1)]),
    Contestant("mnist-meanflow", None, [sampled("flow-map", steps) for steps in (4, 2, 1)]),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("few-steps"), help="of shards and runs")
    parser.add_argument("--samples", type=int, default=FULL, help="at most so many for each figure")
    parser.add_argument("--reference-samples", type=int, help="of the training images; all if left out")
    parser.add_argument("--kimg-scale", type=float, default=1.0, help="of the recipes' lengths")
    parser.add_argument("--evaluations", type=int, default=1000, help="no samplings of more than so many")
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE", help="of these recipes alone")
    arguments = parser.parse_args()
    shards = arguments.folder / "mnist"
    if not (shards / "manifest.json").is_file():
        gesso("shards", "build", "mnist", str(shards), "--size", "32")
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"] if arguments.only and RESULTS.exists() else []
    for contestant in CONTESTANTS:
        if arguments.only and contestant.recipe not in arguments.only:
            continue
        run = trained(contestant, arguments.folder, shards, arguments.kimg_scale)
        rows = [row for row in rows if row["recipe"] != contestant.recipe]
        for sampling, most in contestant.samplings:
            if evaluations_of(sampling) > arguments.evaluations:
                continue
            samples = min(most, arguments.samples), arguments.reference_samples
            rows.append(measured(contestant, run, arguments.folder, sampling, *samples))
            write(rows)
    show(rows)
    return 0


def evaluations_of(sampling: dict[str, object]) -> int:
    """Of the network, for a sample; 1 without a sampler."""
    steps = int(str(sampling.get("steps", 1)))
    return 2 * steps - 1 if sampling.get("sampler") == "heun" else steps


def gesso(*arguments: str) -> str:
    """Runs a command, which shows its progress, and returns what it prints."""
    print("gesso", *arguments, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "gesso", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def run_of(recipe: str, folder: Path) -> Path | None:
    """The finished run of a recipe, if there is one."""
    for info in folder.glob(f"runs/{recipe}-2*/run.json"):
        if json.loads(info.read_text()).get("state") == "finished":
            return info.parent
    return None


def trained(contestant: Contestant, folder: Path, shards: Path, scale: float) -> Path:
    """The run of a recipe, trained now if there is none."""
    if (run := run_of(contestant.recipe, folder)) is not None:
        return run
    options = ["--data.path", str(shards), "--run.root", str(folder / "runs"), "--run.wandb", "disabled"]
    if scale != 1:
        recipe: Any = load_yaml(resolve_recipe(contestant.recipe).read_text())
        options += ["--run.kimg", f"{recipe['run']['kimg'] * scale:g}"]
    if contestant.teacher:
        options += ["--model.teacher", str(run_of(contestant.teacher, folder))]
    gesso("fit", "--config", contestant.recipe, *options)
    run = run_of(contestant.recipe, folder)
    assert run is not None
    return run


def measured(
    contestant: Contestant, run: Path, folder: Path, sampling: dict[str, object], samples: int, reference: int | None
) -> dict[str, Any]:
    """One figure, with all that belongs to it."""
    options = [word for name, value in sampling.items() for word in (f"--{name}", str(value))]
    protocol = ["--extractor", "mobilenet_v2", "--metrics", "fid", "--num-samples", str(samples)]
    protocol += [] if reference is None else ["--reference-samples", str(reference)]
    result = json.loads(gesso("evaluate", str(run), *protocol, *options))
    row = {
        "recipe": contestant.recipe,
        "sampling": sampling_in_words(result.get("sampling")),
        "evaluations": result.get("sampling", {}).get("evaluations", 1),
        "fid": round(result["fid/mobilenet_v2"], 2),
        "samples": result["samples"],
        "against": result["reference"]["images"],
        **spent(run),
    }
    if contestant.teacher and (teacher := run_of(contestant.teacher, folder)) is not None:
        row |= {f"teacher_{name}": value for name, value in spent(teacher).items()}
    return row


def spent(run: Path) -> dict[str, float]:
    """What a training took: thousands of images, and seconds without evaluation."""
    info = json.loads((run / "run.json").read_text())
    return {"kimg": info["kimg"], "seconds": round(info["seconds"])}


def write(rows: list[dict[str, Any]]) -> None:
    facts = {"date": str(date.today()), "processor": processor(), "extractor": "mobilenet_v2", "rows": rows}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("recipe", "sampling", "evaluations", "FID", "samples", "kimg", "teacher's kimg")
    for row in rows:
        known = (row[name] for name in ("recipe", "sampling", "evaluations", "fid", "samples", "kimg"))
        table.add_row(*map(str, known), str(row.get("teacher_kimg", "")))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
