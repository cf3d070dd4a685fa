"""`make demo`: a DCGAN on MNIST for some minutes on two cores, and the way to what it made."""

from __future__ import annotations

from gesso.cli.fit import exit_code
from launch.runs.metrics import read_rows
from launch.training.training import Training


def demo() -> int:
    """Trains, then prints how the FID fell and where grid, report and checkpoint are."""
    made = Training("mnist-dcgan", {"run.name": "demo"}).fit()
    if made.state != "finished":
        return exit_code(made)
    run = made.path
    rows = [row for row in read_rows(made.folder.metrics) if row.name == "fid/mobilenet_v2"]
    print("\nFID (MobileNetV2 features, 1,000 samples):")
    for row in rows:
        bar = "#" * round(50 * row.value / max(row.value for row in rows))
        print(f"  {row.images_seen / 1000:6.0f} kimg  {row.value:8.1f}  {bar}")
    print(f"\ngrid        {max(run.glob('samples/[0-9]*.png'))}")
    print(f"report      {run / 'report.html'}")
    print(f"checkpoint  {run / 'checkpoints' / 'last'}")
    print(f"\nmore of it: .venv/bin/gesso generate {run} --num 100")
    return 0


if __name__ == "__main__":
    raise SystemExit(demo())
