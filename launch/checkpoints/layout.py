"""A checkpoint on disk: a folder that is complete or absent, that knows no strategy, and that holds nothing but data.

::

    000000200000/
        state.json              all that is no tensor: images seen, stream position, options, config, versions ...
        networks.safetensors    the weights that are being trained, whole, by their names in the module
        averages.safetensors    their moving averages
        optimizers.safetensors  moments, by network and parameter
        extra.safetensors       any other tensor, such as a callback's
        complete.json           size and SHA-256 of each of these; without it, the folder is no checkpoint

It is written under a temporary name and renamed, and read without unpickling anything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gesso.common.files import flush, replacing, sha256
from launch.checkpoints.files import FORMAT, MARKER, STATE, discard, partial_folder, remove, verify
from launch.checkpoints.tensors import save_tensors
from lightning_modules.core.saved import AVERAGES, upgraded

#: What stands in state.json for a tensor: ``{"$tensor": "networks:generator.0.weight"}``.
REFERENCE = "$tensor"
#: The file of each kind of tensor, by the start of its path in Lightning's dictionary.
FILES: dict[tuple[str, ...], str] = {
    ("state_dict",): "networks",
    (AVERAGES,): "averages",
    ("optimizer_states",): "optimizers",
}

Tensors = dict[str, dict[str, Tensor]]


def write(path: Path, tree: Mapping[str, Any]) -> None:
    """Writes a checkpoint folder at ``path``; one that stood there is replaced only when the new one is whole.

    Args:
        tree: nested dictionaries and lists of tensors (on the CPU), numbers, strings, booleans and None.

    Raises:
        TypeError: something else is in ``tree``; names it.
        OSError: it cannot be written; what stood there is untouched.
    """
    tensors: Tensors = {}
    state = _without_tensors(tree, (), tensors)
    partial = partial_folder(path)
    discard(partial)
    partial.mkdir(parents=True)
    try:
        for name, content in tensors.items():
            save_tensors(content, partial / f"{name}.safetensors")
        (partial / STATE).write_text(json.dumps(state, indent=1))
        files = sorted(partial.iterdir())
        for file in files:
            flush(file)
        sums = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
        # The marker vouches for what has reached the disk; it is itself there at once or not at all.
        with replacing(partial / MARKER) as marker:
            marker.write_text(json.dumps({"format": FORMAT, "files": sums}, indent=1))
            flush(marker)
        flush(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    remove(path)
    partial.rename(path)
    flush(path.parent)


def read(path: Path) -> dict[str, Any]:
    """The checkpoint at ``path``; tensors are mapped into memory, not copied.

    One that an older version wrote comes as today's would write it.

    Raises:
        ValueError: it is no checkpoint, not a complete one, or damaged; one line that names the file.
    """
    files = verify(path)
    try:
        tensors = {
            name.removesuffix(".safetensors"): load_file(path / name) for name in files if name.endswith(".safetensors")
        }
        state = json.loads((path / STATE).read_text())
        return upgraded({key: _with_tensors(value, tensors) for key, value in state.items()})
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from error


def _without_tensors(value: object, at: tuple[str, ...], tensors: Tensors) -> object:
    """``value`` as JSON can hold it; its tensors go into ``tensors``, by file and key."""
    if isinstance(value, Tensor):
        start = next((start for start in FILES if at[: len(start)] == start), ())
        file, key = FILES.get(start, "extra"), ".".join(at[len(start) :])
        tensors.setdefault(file, {})[key] = value.contiguous()
        return {REFERENCE: f"{file}:{key}"}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a checkpoint's {'.'.join(at)} has keys that are no strings")
        return {key: _without_tensors(item, (*at, key), tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, (*at, str(i)), tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"a checkpoint's {'.'.join(at)} is a {type(value).__name__}; it may hold tensors and plain data only"
    )


def _with_tensors(value: object, tensors: Tensors) -> object:
    if isinstance(value, dict):
        if value.keys() == {REFERENCE}:
            file, _, key = value[REFERENCE].partition(":")
            return tensors[file][key]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    return [_with_tensors(item, tensors) for item in value] if isinstance(value, list) else value


def to_host(value: object) -> object:
    """A copy of a tree whose tensors are the CPU's own: training may go on while it is written."""
    if isinstance(value, Tensor):
        value = value.detach()
        return value.to("cpu") if value.device.type != "cpu" else value.clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {key: to_host(item) for key, item in value.items()}
    return [to_host(item) for item in value] if isinstance(value, list | tuple) else value
