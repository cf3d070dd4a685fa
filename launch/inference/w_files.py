"""Files of what was found in a generator's space W: directions, and projected pictures.

They are safetensors; which generator they belong to, and what they are, stands in their metadata. What is read is
checked: such files come from strangers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gesso.common.files import writing_whole
from gesso.common.text import one_line
from launch.checkpoints.tensors import save_tensors
from launch.inference.pictures import check_free
from lightning_modules.kinds.w_space import WSpace

SUFFIX = ".safetensors"
#: The metadata's key for what a file holds, and its values.
KIND = "gesso"
DIRECTIONS, LATENTS = "directions in W", "latents in W"


@dataclass(frozen=True)
class Directions:
    """Directions in W of one generator.

    Args:
        vectors: float32 [K, w_dim], each of length 1.
        spreads: [K]: standard deviation of w along each: the unit of amounts.
        values: [K]: how much each matters: what it is depends on the method.
        names: of each.
        method: ``sefa``, ``pca`` or ``svm``.
        layers: the first and last layer that they are for; None: all.
        generator: ``WSpace.checksum``.
        origin: where the generator's weights came from, for messages.
    """

    vectors: Tensor
    spreads: Tensor
    values: Tensor
    names: tuple[str, ...]
    method: str
    layers: tuple[int, int] | None
    generator: str
    origin: str

    def number(self, chosen: str | None) -> int:
        """The place of a direction that is named by its name or its number; None: the first.

        Raises:
            ValueError: there is none.
        """
        if chosen is None:
            return 0
        if chosen in self.names:
            return self.names.index(chosen)
        if chosen.isdecimal() and int(chosen) < len(self.names):
            return int(chosen)
        some = ", ".join(self.names[:8]) + (" ..." if len(self.names) > 8 else "")
        raise ValueError(f"no direction {chosen!r} in this file; there are {some}")


def check_target(path: Path) -> Path:
    """Checks the name of a file to write; gives ``path`` back.

    Raises:
        ValueError: it has another ending, or there is a file that is none of ours.
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: name the file to write with the ending {SUFFIX}")
    return check_free(path, ours=lambda file: _kind(file) in (DIRECTIONS, LATENTS))


def save_directions(directions: Directions, path: Path) -> Path:
    """Writes directions; raises like ``check_target``, or an OSError."""
    layers = "all" if directions.layers is None else "{}-{}".format(*directions.layers)
    _save(
        {
            "vectors": directions.vectors.float(),
            "spreads": directions.spreads.float(),
            "values": directions.values.float(),
        },
        {
            KIND: DIRECTIONS,
            "names": json.dumps(directions.names),
            "method": directions.method,
            "layers": layers,
            "generator": directions.generator,
            "origin": directions.origin,
        },
        path,
    )
    return path


def load_directions(path: Path, space: WSpace) -> Directions:
    """The directions in a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, is damaged, or belongs to another generator.
    """
    tensors, about = _load(path, DIRECTIONS, space)
    try:
        names = json.loads(about["names"])
        vectors, spreads, values = (tensors[name] for name in ("vectors", "spreads", "values"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
            raise ValueError("names")
        if vectors.shape != (len(names), space.w_dim) or not spreads.shape == values.shape == (len(names),):
            raise ValueError("shapes")
        found = Directions(
            vectors,
            spreads,
            values,
            tuple(one_line(name) for name in names),
            about.get("method", "?"),
            None if about["layers"] == "all" else parse_layers(about["layers"], space),
            about["generator"],
            about.get("origin", "?"),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({one_line(error)}): run `gesso directions` again") from error
    return found


def named_direction(text: str, space: WSpace) -> tuple[Directions, int]:
    """The directions of ``FILE`` or ``FILE:NAME``, and the place of the one that is named; else the first.

    Raises:
        FileNotFoundError, ValueError: see ``load_directions`` and ``Directions.number``.
    """
    file, colon, name = text.rpartition(":")
    if not colon or Path(text).is_file():
        file, name = text, ""
    directions = load_directions(Path(file), space)
    try:
        return directions, directions.number(name or None)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def save_latents(ws: Tensor, space: WSpace, origin: str, path: Path) -> Path:
    """Writes latents [N, num_ws, w_dim]; raises like ``check_target``, or an OSError."""
    _save({"ws": ws.float().cpu()}, {KIND: LATENTS, "generator": space.checksum(), "origin": origin}, path)
    return path


def load_latents(path: Path, space: WSpace) -> Tensor:
    """The latents [N, num_ws, w_dim] in a file; raises like ``load_directions``."""
    tensors, _ = _load(path, LATENTS, space)
    ws = tensors.get("ws")
    if ws is None or ws.dim() != 3 or ws.shape[1:] != (space.num_ws, space.w_dim) or not len(ws):
        raise ValueError(f"{path}: damaged (no latents of this generator's shape): run `gesso project` again")
    return ws.to(space.device)


def parse_layers(text: str, space: WSpace) -> tuple[int, int]:
    """``2-5`` or ``3`` as the first and last of some layers.

    Raises:
        ValueError: it is none of these, or the generator has no such layers.
    """
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < space.num_ws:
        raise ValueError(f"layers {one_line(text)}: name them as 0-3; this generator has 0 to {space.num_ws - 1}")
    return first, last


def _save(tensors: Mapping[str, Tensor], about: Mapping[str, str], path: Path) -> None:
    check_target(path)
    with writing_whole(path) as partial:
        save_tensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata=about)


def _kind(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get(KIND)
    except (SafetensorError, OSError):
        return None


def _load(path: Path, kind: str, space: WSpace) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A file's tensors and metadata, of this kind and this generator."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of {kind}")
    try:
        with safe_open(path, framework="pt") as opened:
            about = opened.metadata() or {}
            if about.get(KIND) != kind:
                raise ValueError(f"{path}: holds no {kind}")
            own, its = space.checksum(), about.get("generator", "")
            if its != own:
                origin = one_line(about.get("origin", "?"))
                raise ValueError(
                    f"{path}: holds {kind} of another generator ({origin}; weights {one_line(its)[:12]}, here "
                    f"{own[:12]}): use that one, or find them again for this one"
                )
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: holds no {kind}, or is damaged ({one_line(error)})") from error
    if not all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError(f"{path}: damaged: holds infinite or missing numbers")
    return tensors, about
