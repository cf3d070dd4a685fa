"""How busy the GPU was."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from statistics import mean

#: Of the first GPU, in percent.
QUESTION = ("nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


@contextlib.contextmanager
def watched(every: float = 0.25) -> Iterator[list[float]]:
    """Context manager: the list fills with the GPU's utilisation in percent, and stays empty where nobody tells it."""
    samples: list[float] = []
    over = threading.Event()

    def sample() -> None:
        # A driver may tell none.
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            while not over.wait(every):
                told = subprocess.run(QUESTION, capture_output=True, text=True, check=True, timeout=10)
                samples.append(float(told.stdout))

    thread = threading.Thread(target=sample, daemon=True)
    if shutil.which(QUESTION[0]):
        thread.start()
    try:
        yield samples
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def average(samples: list[float]) -> float | None:
    """Their mean without the first tenth, in which what is measured warms up; None where nothing was told."""
    return mean(samples[len(samples) // 10 :]) if samples else None
