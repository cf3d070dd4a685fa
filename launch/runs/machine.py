"""The machine that a training or a measurement ran on: figures, and even ratios, differ from one to the next."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from gesso.common.cores import granted_cores

_CPUINFO = Path("/proc/cpuinfo")
_FIELDS = ("model name", "cpu family", "model")


def processor() -> str:
    """The processor's name, with its family and model, for virtual machines often give no more than a maker's name."""
    first = _CPUINFO.read_text(encoding="utf-8").split("\n\n")[0] if _CPUINFO.is_file() else ""
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    name, family, model = (known.get(field, "") for field in _FIELDS)
    return f"{name}, family {family}, model {model}" if name and family else platform.processor() or platform.machine()


def machine_facts(device: torch.device) -> dict[str, object]:
    """Fields of run.json: the processor, the cores that this process may use, its threads, and the GPU if it is one."""
    return {
        "processor": processor(),
        "cores": granted_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }
