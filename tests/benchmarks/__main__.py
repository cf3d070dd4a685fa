"""`make bench`: every benchmark, one after the other, each in a process of its own.

Each measures the rivals side by side in one run (A B A B, medians), prints a table and keeps its figures in
``tests/benchmarks/results/``. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "bench_step",
    "bench_host",
    "bench_ddp",
    "bench_noise",
    "bench_style",
    "bench_diffusion",
    "bench_serve",
    "bench_zero",
    "bench_fid",
    "bench_loader",
    "bench_order",
    "bench_slurm",
    "bench_tune",
)


def main() -> int:
    chosen = sys.argv[1:] or BENCHMARKS
    failed = []
    for name in chosen:
        print(f"\n=== {name} ===", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
