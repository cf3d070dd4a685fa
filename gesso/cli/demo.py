"""`make demo`: a DCGAN on MNIST for some minutes on two cores, and the way to what it made."""

from __future__ import annotations

import csv

from gesso.cli.fit import exit_code
from launch.training.training import Training


def demo() -> int:
    """Trains, then prints how the FID fell and where grid, report and checkpoint are."""
    made = Training("mnist-dcgan", {"run.name": "demo"}).fit()
    if made.state != "finished":
        return exit_code(made)
    run = made.path
    with (run / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["name"] == "fid/mobilenet_v2"]
    fids = [float(row["value"]) for row in rows]
    print("\nFID (MobileNetV2 features, 1,000 samples):")
    for row, fid in zip(rows, fids, strict=True):
        bar = "#" * round(50 * fid / max(fids))
        print(f"  {int(row['images_seen']) / 1000:6.0f} kimg  {fid:8.1f}  {bar}")
    print(f"\ngrid        {max(run.glob('samples/[0-9]*.png'))}")
    print(f"report      {run / 'report.html'}")
    print(f"checkpoint  {run / 'checkpoints' / 'last'}")
    print(f"\nmore of it: .venv/bin/gesso generate {run} --num 100")
    return 0


if __name__ == "__main__":
    raise SystemExit(demo())
