"""FID evaluation against torchmetrics' own, and FID against torch-fidelity's network with scipy.

    python -m tests.benchmarks.bench_fid                  # times, A B A B, a few minutes
    python -m tests.benchmarks.bench_fid --images 2000    # agreement: train against test split of CIFAR-10
    python -m tests.benchmarks.bench_fid --whole          # all 50,000 against 10,000: 40 minutes on two cores

All write ``tests/benchmarks/results/fid.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from datamodules.assets.fetching import fetch
from launch.runs.machine import processor
from lightning_modules.metrics.features import build_extractor
from lightning_modules.metrics.frechet import frechet_distance, frechet_distance_to_features
from lightning_modules.metrics.generation import GenerationMetrics, reference_statistics
from tests.lightning_modules.metrics.metrics_reference import (
    cifar10,
    features_in_batches,
    reference_inception,
    scipy_frechet,
)

RESULTS = Path(__file__).parent / "results" / "fid.json"
DIM = 2048
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # of what is not timed


def alternate(a: Callable[[], Tensor], b: Callable[[], Tensor], rounds: int) -> tuple[list[Any], list[float]]:
    """Runs a b a b ... after one warm-up each. Returns their last results and their median seconds."""
    results: list[Any] = [a(), b()]
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for i, function in enumerate((a, b)):
            start = time.perf_counter()
            results[i] = function()
            seconds[i].append(time.perf_counter() - start)
    return results, [statistics.median(times) for times in seconds]


def torchmetrics_fid(weights: Path) -> FrechetInceptionDistance:
    """torchmetrics' FID with our weights and TensorFlow's resize (its default resize is another metric)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inception.pth"
        torch.save(reference_inception(weights).state_dict(), file)
        return FrechetInceptionDistance(feature_extractor_weights_path=str(file), antialias=False)


def row(what: str, results: list[Any], seconds: list[float], goal: float) -> dict[str, Any]:
    theirs, ours = (torch.as_tensor(result, dtype=torch.float64) for result in results)
    return {
        "what": what,
        "torchmetrics_s": round(seconds[0], 4),
        "gesso_s": round(seconds[1], 4),
        "speedup": round(seconds[0] / seconds[1], 2),
        "goal": goal,
        "relative_difference": ((theirs - ours).norm() / theirs.norm()).item(),
    }


def bench_extraction(count: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """uint8 images to the sums that FID needs, streamed in batches; compared by the features' covariance sums."""
    weights = fetch("inception")
    images = cifar10("test", count)
    theirs = torchmetrics_fid(weights)
    extractor = build_extractor("inception-tf", weights)
    reference = reference_statistics([images[:4]], extractor, num_samples=4, cap=0)
    ours = GenerationMetrics(extractor, reference, num_samples=count)

    def run_theirs() -> Tensor:
        theirs.reset()
        for batch in images.split(batch_size):
            theirs.update(batch, real=False)
        return theirs.fake_features_cov_sum

    def run_ours() -> Tensor:
        ours.reset()
        for index in torch.arange(count).split(batch_size):
            ours.update(images[index], index)
        return ours.statistics.outer

    results, seconds = alternate(run_theirs, run_ours, rounds)
    return row(f"features of {count} images", results, seconds, 1.4)


def synthetic_features(count: int, seed: int) -> Tensor:
    """Correlated features with a decaying spectrum, as a network's; full rank when ``count`` > 2048."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, DIM + 1, dtype=torch.float64) ** -0.5
    basis = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)).Q
    samples = torch.randn(count, DIM, generator=generator, dtype=torch.float64)
    return (samples * spectrum) @ basis.T + torch.rand(DIM, generator=generator, dtype=torch.float64) * 0.1


def bench_frechet(rounds: int) -> list[dict[str, Any]]:
    """The distance alone, from moments, at 2048 dimensions: enough samples, then fewer samples than dimensions."""
    rows = []
    first = synthetic_features(3 * DIM, 1)
    mean, cov = first.mean(0), first.T.cov()
    for count in (3 * DIM, 1000):
        features = synthetic_features(count, 2)
        moments = features.mean(0), features.T.cov()
        if count > DIM:
            ours = partial(frechet_distance, mean, cov, *moments)
        else:
            ours = partial(frechet_distance_to_features, mean, cov, features)
        results, seconds = alternate(partial(_compute_fid, mean, cov, *moments), ours, rounds)
        rows.append(row(f"Fréchet term, {count} samples", results, seconds, 2.5))
    return rows


def gesso_fid(real: Tensor, fake: Tensor, batch_size: int) -> float:
    """FID of two sets of images by gesso, on the GPU where there is one."""
    extractor = build_extractor("inception-tf", fetch("inception")).to(DEVICE)
    batches = (batch.to(DEVICE) for batch in track(real.split(batch_size), "first set"))
    reference = reference_statistics(batches, extractor, num_samples=len(real), cap=0)
    metrics = GenerationMetrics(extractor, reference, num_samples=len(fake))
    for index in track(torch.arange(len(fake)).split(batch_size), "second set"):
        metrics.update(fake[index].to(DEVICE), index)
    return metrics.compute()["fid/inception-tf"]


def agreement(count: int, batch_size: int) -> dict[str, Any]:
    """FID of CIFAR-10's train against its test split, ``count`` images each, by both implementations."""
    real, fake = cifar10("train", count), cifar10("test", count)
    ours = gesso_fid(real, fake, batch_size)
    network = reference_inception(fetch("inception"))
    theirs = scipy_frechet(*(features_in_batches(network, images, batch_size) for images in (real, fake)))
    return {
        "data": f"CIFAR-10, first {count} of train against first {count} of test",
        "gesso": ours,
        "torch_fidelity_network_scipy_sqrtm": theirs,
        "relative_difference": abs(ours - theirs) / theirs,
    }


def whole(batch_size: int) -> dict[str, Any]:
    """FID of CIFAR-10's whole train against its whole test split, a figure that papers print, too."""
    return {
        "data": "CIFAR-10, all 50,000 of train against all 10,000 of test",
        "device": str(DEVICE),
        "gesso": gesso_fid(cifar10("train", 50_000), cifar10("test", 10_000), batch_size),
    }


def keep(name: str, result: Any) -> None:
    """Puts ``result`` under ``name`` into the results file, beside what is there."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = {
        "processor": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }
    known[name] = {**machine, "result": result}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="check the agreement on this many images a side, and time nothing")
    parser.add_argument("--whole", action="store_true", help="CIFAR-10's whole train against its whole test split")
    parser.add_argument("--timed-images", type=int, default=128, help="images per timed round (default 128)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default 32)")
    parser.add_argument("--rounds", type=int, default=3, help="A B rounds after the warm-up (default 3)")
    options = parser.parse_args()
    if options.images or options.whole:
        name = "cifar10_train_against_test" if options.whole else f"agreement_{options.images}"
        result = whole(options.batch_size) if options.whole else agreement(options.images, options.batch_size)
        keep(name, result)
        print(json.dumps(result, indent=1))
        return
    rows = [
        bench_extraction(options.timed_images, options.batch_size, options.rounds),
        *bench_frechet(options.rounds),
    ]
    keep("speed", rows)
    print(f"{'':32}{'torchmetrics':>14}{'gesso':>10}{'speed-up':>10}{'goal':>7}{'apart by':>11}")
    for r in rows:
        times = f"{r['torchmetrics_s']:>12.3f} s{r['gesso_s']:>8.3f} s"
        print(f"{r['what']:32}{times}{r['speedup']:>9.2f}x{r['goal']:>6}x{r['relative_difference']:>11.1e}")


if __name__ == "__main__":
    main()
