"""A deployable network as torch's own graph in one file: ``torch.export.load(FILE).module()`` needs torch alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.core.deployment import Deployable, Inputs

#: The entry of the archive that holds the facts.
FACTS = "gesso.json"


def write_pt2(program: torch.export.ExportedProgram, out: Path, metadata: Mapping[str, str]) -> None:
    """Writes the traced network, with facts as the entry ``gesso.json``."""
    with out.open("wb") as stream:
        torch.export.save(program, stream, extra_files={FACTS: json.dumps(dict(metadata))})


class TorchRunner:
    """A ``.pt2`` file in torch.

    Args:
        file: the file.
        deployable: what was written, for the order of its inputs.
    """

    def __init__(self, file: Path, deployable: Deployable) -> None:
        with file.open("rb") as stream:
            self.module = torch.export.load(stream).module()
        self.names = tuple(deployable.inputs)

    def __call__(self, inputs: Inputs) -> Tensor:
        """What the file gives for inputs."""
        with torch.no_grad():
            found: Tensor = self.module(*(inputs[name].detach().cpu() for name in self.names))
        return found
