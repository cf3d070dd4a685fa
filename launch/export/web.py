"""A run as a static folder: a page that makes its pictures in the browser, by onnxruntime's WebAssembly beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.assets.fetching import fetch
from gesso.common.files import naming, partial_path, sha256, write_whole
from gesso.common.text import binary_size
from launch.evaluation.sources import data_of
from launch.export.front import Exported, Exporter, ExportOptions
from lightning_modules.core.abilities import CannotDo
from lightning_modules.core.deployment import Port

#: The page's own files, which are copied as they are.
PAGE = Path(__file__).with_name("page")
#: The asset with onnxruntime for browsers, and its files as they are called in the folder: servers that do not know
#: `.mjs` send a module under a type that browsers refuse.
RUNTIME = "onnxruntime_web"
RUNTIMES = {
    "wasm": {
        "module": ("ort.wasm.bundle.min.mjs", "ort/ort.wasm.js"),
        "binary": ("ort-wasm-simd-threaded.wasm", "ort/ort.wasm.wasm"),
    },
    "webgpu": {
        "module": ("ort.webgpu.bundle.min.mjs", "ort/ort.webgpu.js"),
        "binary": ("ort-wasm-simd-threaded.asyncify.wasm", "ort/ort.webgpu.wasm"),
    },
}
#: What the page knows of its model, and the model.
FACTS, MODEL = "model.json", "model.onnx"
FORMAT = "gesso page 1"
#: Inputs that the page can give.
KNOWN = frozenset(
    {"latents", "labels", "truncation", "content", "style", "alpha", "mix", "noise", "source", "style_code"}
)


def write_web(
    source: str, out: Path, options: ExportOptions, notice: Callable[[str], None] = lambda line: None
) -> Exported:
    """Writes a folder that any static server can serve: page, runtime and the model, which has passed the gate.

    Sizes of pictures are free where the network takes any, unless the layout asks for one. Files of an earlier page in
    ``out`` are replaced, and all others stay.

    Args:
        source: run, checkpoint or exported file.
        out: the folder.
        options: see ``ExportOptions``.
        notice: is told in one line what a user should know.

    Raises:
        ValueError: a page cannot run this part, the model is not the run, or ``out`` holds another page; one line.
        RuntimeError: the runtime cannot be fetched; the line says what to do.
    """
    _check_place(out)
    options = replace(options, layout=replace(options.layout, truncation=True))
    exporter = Exporter(source, options, notice)
    _check_part(exporter)
    runtime = fetch(RUNTIME)
    partial = partial_path(out)
    with naming(out):
        partial.mkdir(parents=True)
        try:
            made = _model(exporter, partial / MODEL, notice)
            _copy_page(partial, runtime)
            write_whole(partial / FACTS, json.dumps(page_facts(exporter, partial), indent=1, ensure_ascii=False))
            _move(partial, out)
        except ValueError as error:
            raise ValueError(str(error).replace(str(partial), str(out))) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return replace(made, file=out / MODEL)


def served_by(out: Path) -> str:
    """How to look at the page, in one line."""
    folder = f"'{out}'" if any(letter.isspace() for letter in str(out)) else out
    return f"python -m http.server --bind 127.0.0.1 --directory {folder} 8000   # then open http://localhost:8000"


def _check_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; name the folder to write")
    if (out / "index.html").exists() and not _is_page(out):
        raise ValueError(f"{out}: its index.html is of another page; name a folder without one")


def _is_page(out: Path) -> bool:
    try:
        return bool(json.loads((out / FACTS).read_text(encoding="utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_part(exporter: Exporter) -> None:
    """Raises a ValueError where the page could not make a picture with this part."""
    name, part = exporter.module.described(), exporter.part
    inputs = exporter.deployable.inputs
    if "noisy" in inputs:
        raise ValueError(f"--web: {name}'s {part} is one step of a sampler, and the page has no sampler; --onnx has it")
    if not exporter.deployable.is_picture:
        raise ValueError(f"--web: {name}'s {part} makes no picture")
    if "latents" in inputs and inputs["latents"].example.dim() != 2:
        raise ValueError(f"--web: {name}'s {part} takes latents that another network makes; --part names another part")
    if "style_code" in inputs:
        try:
            exporter.module.draw_styles(1, seed=0)
        except CannotDo as error:
            raise ValueError(f"--web: {name}'s styles are those of pictures, which the page cannot encode") from error
    if unknown := sorted(inputs.keys() - KNOWN):
        raise ValueError(f"--web: the page has no {', '.join(unknown)} to give to {name}'s {part}")


def _model(exporter: Exporter, file: Path, notice: Callable[[str], None]) -> Exported:
    """Writes the model, of free sizes where that works."""
    layout = exporter.options.layout
    takes_pictures = any(port.pictures for port in exporter.deployable.inputs.values())
    if takes_pictures and not (layout.dynamic or layout.height):
        try:
            exporter.lay_out(replace(layout, dynamic=True))
            return exporter.onnx(file)
        except ValueError as error:
            notice(f"the page takes pictures of one size ({str(error).removeprefix(f'{file}: not written, ')})")
            exporter.lay_out(layout)
    return exporter.onnx(file)


def _copy_page(folder: Path, runtime: Path) -> None:
    for file in PAGE.iterdir():
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    for files in RUNTIMES.values():
        for source, name in files.values():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(runtime / source, folder / name)


def _move(partial: Path, out: Path) -> None:
    """Files to their place; what the page is told of them comes last."""
    files = sorted(file.relative_to(partial) for file in partial.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file.name == FACTS):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (partial / file).replace(out / file)


def page_facts(exporter: Exporter, folder: Path) -> dict[str, Any]:
    """What the page knows of its model: where its files are and how long, and what inputs it takes.

    Args:
        exporter: of the model.
        folder: the page's, whose files are there.
    """
    facts = {key.removeprefix("gesso."): value for key, value in exporter.metadata.items()}
    names = {"labels": class_names(exporter)}
    return {
        "format": FORMAT,
        **{key: facts[key] for key in ("family", "part", "run", "kimg", "weights", "licence", "checkpoint_sha256")},
        "sampling": exporter.module.sampled(),
        "model": _file(folder, MODEL),
        "runtimes": {
            kind: {role: _file(folder, name) for role, (_, name) in files.items()} for kind, files in RUNTIMES.items()
        },
        "inputs": {
            name: _port(port, exporter.options.layout.dynamic) | ({"names": names[name]} if name in names else {})
            for name, port in exporter.deployable.inputs.items()
        },
        "output": {"name": exporter.deployable.output, "about": exporter.deployable.about},
    }


def _file(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    return {"file": name, "bytes": file.stat().st_size, "sha256": sha256(file)}


def _port(port: Port, dynamic: bool) -> dict[str, Any]:
    """An input: its shape, with null for what is free, and how its values are made."""
    shape = [None if dynamic and axis in port.axes else side for axis, side in enumerate(port.example.shape)]
    return {
        "about": port.about,
        "type": str(port.example.dtype).removeprefix("torch."),
        "shape": shape,
        "multiple": port.multiple,
        "bound": port.bound,
        "names": list(port.names),
    }


def class_names(exporter: Exporter) -> list[str]:
    """Names of the classes, of the run's data where that is there, else their numbers; none: it has no classes."""
    if "labels" not in exporter.deployable.inputs:
        return []
    count = exporter.module.batch_spec().num_classes
    try:
        names = data_of(exporter.checkpoint, exporter.module, {"path": exporter.options.data}).manifest.classes
    except (ValueError, OSError):
        names = ()
    return list(names) if len(names) == count else [str(number) for number in range(count)]


def summary(out: Path) -> str:
    """What the folder holds, in words."""
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return f"{out}: page, model and runtime; {binary_size(total)}"
