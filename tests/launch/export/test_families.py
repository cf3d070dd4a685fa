"""Every family of the catalogue as an ONNX file, of fixed sizes and of free ones, within 1e-4 of itself."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from lightning_modules.catalogue import FAMILIES
from lightning_modules.core.deployment import Layout
from tests.launch.export.families import OPTIONS, exported, tiny

#: Parts besides the main one.
PARTS = {"VAE": ("reconstruction",), "AutoencoderKL": ("encoder", "reconstruction")}
CASES = [(name, part) for name in OPTIONS for part in (None, *PARTS.get(name, ()))]
#: Those that are traced in about a second, and whether of free sizes; the others are proofs.
QUICK = [
    ("DCGAN", None, True),
    ("VAE", None, True),
    ("VAE", "reconstruction", True),
    ("FastStyle", None, False),
    ("CycleGAN", None, True),
    ("R3GAN", None, True),
]


def test_every_family_that_says_how_it_is_exported_is_here() -> None:
    own = {name for name in FAMILIES.own if "deployable" in vars(FAMILIES.find(name))}
    assert own <= set(OPTIONS) <= set(FAMILIES.own)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "dynamic"), QUICK)
def test_quick_ones(name: str, part: str | None, dynamic: bool, tmp_path: Path) -> None:
    _proven(name, part, tmp_path / "one.onnx", dynamic=dynamic)


@pytest.mark.proof
@pytest.mark.parametrize(("name", "part"), CASES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_the_file_gives_what_the_family_gives(name: str, part: str | None, dynamic: bool, tmp_path: Path) -> None:
    _proven(name, part, tmp_path / "one.onnx", dynamic=dynamic)


def _proven(name: str, part: str | None, file: Path, *, dynamic: bool) -> None:
    module = tiny(name)
    figures = exported(module, module.known_part(part), Layout(dynamic=dynamic), file)
    print(f"{name} {part or ''} {'dynamic' if dynamic else 'fixed'}: {figures}")
    assert figures.difference < 1e-4
    model = onnx.load(file)
    assert {entry.version for entry in model.opset_import if not entry.domain} == {20}
    free = [dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param]
    assert bool(free) == dynamic
    assert set(free) <= {"batch", "height", "width", "style_height", "style_width"}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
