"""INT8 forms of an ONNX file: faster (``speed``), or smaller alone (``size``). Both hold explicit Q/DQ operations."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gesso.common.extras import needing
from lightning_modules.core.deployment import Inputs

if TYPE_CHECKING:
    import onnx

#: ``speed``: weights and activations in 8 bits; ``size``: weights alone, computed with in float32.
Int8 = Literal["speed", "size"]
#: Operations that run in 8 bits under ``speed``: what lies between two convolutions, so that no map is converted back.
IN_8_BITS = ["Conv", "Relu", "Pad", "Resize", "MaxPool"]
#: The share of each map's values that its range holds, in percent; the rest is clipped.
PERCENTILE = 99.99
#: Weights of fewer numbers stay as they are.
SMALLEST = 256


def quantize(model: Path, out: Path, kind: Int8, calibration: Iterable[Inputs]) -> None:
    """Writes the INT8 form of an ONNX file; its metadata say which.

    Args:
        model: the file in float32.
        out: the file to write.
        kind: see ``Int8``.
        calibration: inputs by which ``speed`` finds the ranges of the maps.

    Raises:
        ValueError: there is nothing to quantise, or onnxruntime refuses; one line.
    """
    with needing("export"):
        import onnx
    made = _fast(model, out, calibration) if kind == "speed" else _small(onnx.load(model))
    if not any(node.op_type == "DequantizeLinear" for node in made.graph.node):
        raise ValueError(f"--int8 {kind} finds nothing to quantise in this network")
    facts = {entry.key: entry.value for entry in made.metadata_props}
    del made.metadata_props[:]
    onnx.helper.set_model_props(made, {**facts, "gesso.int8": kind})
    made.producer_name, made.producer_version = "gesso", ""
    out.write_bytes(made.SerializeToString(deterministic=True))


def _fast(model: Path, out: Path, calibration: Iterable[Inputs]) -> onnx.ModelProto:
    """Weights by channel, activations by map with the range of their ``PERCENTILE``."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            found = next(self.inputs, None)
            return None if found is None else {name: value.cpu().numpy() for name, value in found.items()}

    try:
        with _silent():
            quantize_static(
                onnx.load(model),
                str(out),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=IN_8_BITS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE},
            )
    except Exception as error:  # a dozen kinds
        raise ValueError(f"onnxruntime cannot quantise this network ({' '.join(str(error).split())[:200]})") from error
    return onnx.load(out)


def _small(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as int8 with a scale for each output channel, each behind a DequantizeLinear."""
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    added: list[onnx.NodeProto] = []
    done: dict[str, str] = {}
    for node in graph.node:
        axis = _output_axis(node)
        name = node.input[1] if axis is not None and len(node.input) > 1 else ""
        if name not in weights or weights[name].data_type != 1:
            continue
        if name not in done:
            values = numpy_helper.to_array(weights[name])
            if values.size < SMALLEST:
                continue
            assert axis is not None
            integers, scale = _rounded(values, axis)
            graph.initializer.remove(weights[name])
            graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
            done[name] = f"{name}_float"
            added.append(
                helper.make_node(
                    "DequantizeLinear",
                    [f"{name}_int8", f"{name}_scale"],
                    [done[name]],
                    name=f"{name}_dequantize",
                    axis=axis % values.ndim,
                )
            )
        node.input[1] = done[name]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*added, *rest])
    return model


def _output_axis(node: onnx.NodeProto) -> int | None:
    """The dimension of a node's weights that counts its outputs; None: it has no weights."""
    if node.op_type == "Gemm":
        return 0 if any(one.name == "transB" and one.i for one in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)


def _rounded(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 in [-127, 127], and their scale for each place along ``axis``, float32."""
    axis %= values.ndim
    others = tuple(dim for dim in range(values.ndim) if dim != axis)
    scale = np.abs(values).max(axis=others) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    shape = [-1 if dim == axis else 1 for dim in range(values.ndim)]
    return np.rint(values / scale.reshape(shape)).clip(-127, 127).astype(np.int8), scale


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
