"""INT8 files: what they hold, how large they are, how far they are, and that an outlier in the calibration shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from launch.export.gate import Figures, check, compare
from launch.export.onnx_file import OnnxRunner, traced, write_onnx
from launch.export.quantization import Int8, quantize
from lightning_modules.core.deployment import Deployable, Inputs, Port
from lightning_modules.metrics.similarity import SourceSimilarity


class Blur(nn.Module):
    """Three convolutions that blur a picture by little, through many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, source: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(source))))
        return source + 0.5 * torch.tanh(self.last(hidden))


def pictures(count: int, seed: int, factor: float = 1.0) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield {"source": factor * (torch.rand(1, 3, 24, 24, generator=generator) * 2 - 1)}


@pytest.fixture(scope="module")
def blur(tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployable, Path]:
    torch.manual_seed(0)
    network = Blur().eval().requires_grad_(False)
    for layer in (network.first, network.second, network.last):
        layer.weight *= 3
    deployable = Deployable(
        network,
        {"source": Port(torch.zeros(1, 3, 24, 24), "a picture")},
        "picture",
        "a picture",
        lambda index, seed, given: dict(given),
        lambda inputs: network(inputs["source"]),
    )
    file = tmp_path_factory.mktemp("blur") / "blur.onnx"
    write_onnx(traced(deployable, dynamic=False), deployable, file, {"gesso.kimg": "3"})
    return deployable, file


def figures_of(blur: tuple[Deployable, Path], out: Path, kind: Int8, calibration: Iterator[Inputs]) -> Figures:
    quantize(blur[1], out, kind, calibration)
    return compare(blur[0], OnnxRunner(out, "picture"), pictures(4, 1), SourceSimilarity(None, ("psnr",)))


def test_weights_alone(blur: tuple[Deployable, Path], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    figures = figures_of(blur, out, "size", pictures(0, 0))
    assert figures.similarity["psnr"] > 45
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"gesso.kimg": "3", "gesso.int8": "size"}
    # Each weight is within half a step of what it was, the step of its own output channel.
    before = {one.name: numpy_helper.to_array(one) for one in onnx.load(blur[1]).graph.initializer}
    after = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    integers = [name for name in after if name.endswith("_int8")]
    assert len(integers) == 3
    for name in integers:
        own = name.removesuffix("_int8")
        scale = after[f"{own}_scale"].reshape(-1, 1, 1, 1)
        assert np.abs(before[own]).max((1, 2, 3)) == pytest.approx(127 * scale.ravel(), rel=1e-6)
        assert (np.abs(after[name] * scale - before[own]) <= 0.5001 * scale).all()


def test_weights_and_maps(blur: tuple[Deployable, Path], tmp_path: Path) -> None:
    out = tmp_path / "fast.onnx"
    figures = figures_of(blur, out, "speed", pictures(8, 0))
    assert figures.similarity["psnr"] > 25
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert kinds.count("QuantizeLinear") >= 3
    assert kinds.count("DequantizeLinear") >= 6


def test_an_outlier_in_the_calibration_shows(blur: tuple[Deployable, Path], tmp_path: Path) -> None:
    def with_outlier() -> Iterator[Inputs]:
        yield from pictures(7, 0)
        yield from pictures(1, 3, factor=300)

    good = figures_of(blur, tmp_path / "good.onnx", "speed", pictures(8, 0))
    bad = figures_of(blur, tmp_path / "bad.onnx", "speed", with_outlier())
    assert bad.similarity["psnr"] < good.similarity["psnr"] - 10
    with pytest.raises(ValueError, match="not the run"):
        check(bad, tolerance=2 * good.difference, max_lpips=None)


def test_nothing_to_quantise(tmp_path: Path) -> None:
    deployable = Deployable(
        nn.Sigmoid(),
        {"source": Port(torch.zeros(1, 3, 8, 8), "a picture")},
        "picture",
        "a picture",
        lambda index, seed, given: dict(given),
        lambda inputs: inputs["source"].sigmoid(),
    )
    write_onnx(traced(deployable, dynamic=False), deployable, tmp_path / "a.onnx", {})
    with pytest.raises(ValueError, match="--int8 size finds nothing to quantise in this network"):
        quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", "size", iter(()))
    assert not (tmp_path / "b.onnx").exists()
