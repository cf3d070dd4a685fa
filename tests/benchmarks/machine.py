"""What a figure was measured on, for the files in ``results/``: ratios, too, differ from one processor to the next."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FIELDS = ("model name", "cpu family", "model")


def processor() -> str:
    """The processor's name, with its family and model, for virtual machines often give no more than a maker's name."""
    first = _CPUINFO.read_text().split("\n\n")[0] if _CPUINFO.is_file() else ""
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    name, family, model = (known.get(field, "") for field in _FIELDS)
    return f"{name}, family {family}, model {model}" if name and family else platform.processor() or platform.machine()
