"""A deployable network as one ONNX file, and that file in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gesso.common.extras import needing
from gesso.common.text import one_line
from lightning_modules.core.deployment import Deployable, Inputs

if TYPE_CHECKING:
    import onnx

OPSET = 20
#: Bytes beyond which a file cannot be: protobuf's limit.
LARGEST = 2**31 - 2**20


def traced(deployable: Deployable, *, dynamic: bool) -> torch.export.ExportedProgram:
    """The network as torch's own graph.

    Raises:
        ValueError: it cannot be traced, or a size that should be free is not; one line.
    """
    ports = deployable.inputs.values()
    # What is asked for strictly is refused where sizes follow from each other; what is not free is found below.
    free = tuple(dict.fromkeys(port.axes, torch.export.Dim.AUTO) if dynamic else None for port in ports)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(
                deployable.network.eval(),
                tuple(port.example for port in ports),
                dynamic_shapes=(free,) if dynamic else None,
                strict=False,
            )
    except Exception as error:  # torch raises a dozen kinds
        raise ValueError(f"torch.export cannot trace this network ({_said(error)})") from error


def write_onnx(
    program: torch.export.ExportedProgram, deployable: Deployable, out: Path, metadata: Mapping[str, str]
) -> None:
    """Writes one ONNX file of opset 20 with the inputs' and the output's names, and facts as its metadata.

    Args:
        program: of ``traced``.
        deployable: what was traced.
        out: the file.
        metadata: facts by name.

    Raises:
        ValueError: an operation has no counterpart, a dimension that should be free is not, or the file would be too
            large; one line.
        ModuleNotFoundError: the extra ``export`` is not installed.
    """
    with needing("export"):
        import onnx
        import onnxscript  # noqa: F401 # torch's exporter needs it
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                input_names=list(deployable.inputs),
                output_names=[deployable.output],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises a dozen kinds
        raise ValueError(f"torch.onnx.export refuses this network ({_said(error)})") from error
    assert made is not None
    model = made.model_proto
    if model.ByteSize() > LARGEST:
        raise ValueError(f"the network has {model.ByteSize():,} bytes; one ONNX file holds {LARGEST:,}")
    _name_axes(model, deployable, dynamic=any(_free(value) for value in model.graph.input))
    _strip(model.graph)
    model.producer_name, model.producer_version = "gesso", ""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    out.write_bytes(model.SerializeToString(deterministic=True))


def _name_axes(model: onnx.ModelProto, deployable: Deployable, *, dynamic: bool) -> None:
    """Gives free dimensions the names of the ports' axes."""
    if not dynamic:
        return
    names: dict[str, str] = {}
    for value, port in zip(model.graph.input, deployable.inputs.values(), strict=True):
        dims = value.type.tensor_type.shape.dim
        for number, name in port.axes.items():
            if not dims[number].dim_param:
                raise ValueError(
                    f"{name} of {value.name} cannot be free: the network is made for {dims[number].dim_value}; leave "
                    "--dynamic out"
                )
            names.setdefault(dims[number].dim_param, name)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"s\d+", lambda found: names.get(found[0], found[0]), dim.dim_param)


def _free(value: onnx.ValueInfoProto) -> bool:
    return any(dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _strip(graph: onnx.GraphProto) -> None:
    """Takes out what the exporter noted of the machine: traces with its paths."""
    graph.name = "gesso"
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


class OnnxRunner:
    """An ONNX file in onnxruntime, on one thread of the CPU: the same numbers every time.

    Args:
        file: the file.
        output: name of its output.

    Raises:
        ValueError: onnxruntime cannot load it.
    """

    def __init__(self, file: Path, output: str) -> None:
        with needing("export"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, private ones
            raise ValueError(f"onnxruntime cannot load the export ({_said(error)})") from error
        self.output = output

    def __call__(self, inputs: Inputs) -> Tensor:
        """What the file gives for inputs."""
        feeds = {name: value.detach().cpu().numpy() for name, value in inputs.items()}
        try:
            (found,) = self.session.run([self.output], feeds)
        except Exception as error:  # its own classes, private ones
            raise ValueError(f"onnxruntime cannot run the export ({_said(error)})") from error
        return torch.from_numpy(found)


def _said(error: BaseException) -> str:
    """The first cause of a library's error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context manager: torch's exporters say nothing; what goes wrong they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
