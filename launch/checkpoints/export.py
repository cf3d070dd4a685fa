"""The networks that make the picture, out of a checkpoint: one safetensors file, and the config that rebuilds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from gesso.common.files import write_whole, writing_whole
from gesso.common.strict_yaml import read_mapping
from launch.checkpoints.tensors import save_tensors
from lightning_modules.catalogue import family
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.options import constructor_options

SUFFIX = ".safetensors"


def export(module: ImageFamily, out: Path, *, origin: dict[str, Any], options: Mapping[str, Any] | None = None) -> Path:
    """Writes the weights of ``module``'s generating networks to ``out``, and its config beside it.

    Args:
        module: a family as ``launch.inference.loading.load_family`` returns it.
        out: a name that ends with ``.safetensors``.
        origin: where the weights come from; goes into the file's metadata.
        options: of the family, in the config; None: as it was made. ``latents.autoencoder`` may be the name of a file
            beside the config.

    Returns:
        The config's file: ``out`` with ``.yaml``; its ``model`` section is one of a recipe.

    Raises:
        ValueError: ``out`` has another ending, or its name or the config's belongs to another file.
    """
    if out.suffix != SUFFIX:
        raise ValueError(f"{out}: name the file to write with the ending {SUFFIX}")
    text = out.with_suffix(".yaml")
    if out.exists() and not _is_export(out):
        raise ValueError(f"{out}: is there, and is not an exported model; give the export another name")
    if text.exists() and not _is_exported(text):
        raise ValueError(f"{text}: is there, and is not the config of an export; give the export another name")
    weights = {
        f"{network}.{name}": tensor.contiguous()
        for network in module.generating_networks()
        for name, tensor in getattr(module, network).state_dict().items()
    }
    init_args = constructor_options(module.hparams) if options is None else dict(options)
    config = {"model": {"class_path": type(module).__name__, "init_args": init_args}}
    with writing_whole(out) as partial:
        save_tensors(weights, partial, metadata={"format": "pt", **{key: str(value) for key, value in origin.items()}})
        write_whole(text, yaml.safe_dump(config, sort_keys=False))
    return text


def _is_export(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as opened:
            return "images_seen" in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _is_exported(config: Path) -> bool:
    try:
        return set(read_mapping(config, what="config of an exported model")) == {"model"}
    except (ValueError, OSError):
        return False


def rebuild(file: Path) -> tuple[ImageFamily, bool]:
    """The family that ``export`` wrote to ``file``; networks that were not exported hold random weights.

    Returns:
        The module, and whether its weights are the average.

    Raises:
        ValueError: the file or its config is missing, damaged or of another architecture.
    """
    config = file.with_suffix(".yaml")
    if not file.is_file() or not config.is_file():
        raise ValueError(f"{file}: missing, or the config {config.name} does not lie beside it")
    try:
        model: Any = read_mapping(config, what="config of an exported model")["model"]
        module = family(model["class_path"]).from_options(_found(model["init_args"], file.parent))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{config}: not the config of an exported model ({error})") from error
    try:
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
        absent, unknown = module.load_state_dict(load_file(file), strict=False)
        module.images_seen = int(about["images_seen"])
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: not the weights of this config ({' '.join(str(error).split())[:200]})") from error
    needed = tuple(f"{network}." for network in module.generating_networks())
    if wrong := [*unknown, *(name for name in absent if name.startswith(needed))]:
        raise ValueError(f"{file}: not the weights of this config ({wrong[0]})")
    return module, about.get("weights") == "average"


def _found(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The options, with an autoencoder that lies beside their config named by its path."""
    latents = options.get("latents") or {}
    name = latents.get("autoencoder") or ""
    if not name or Path(name).is_absolute():
        return dict(options)
    if Path(name).name != name:
        raise ValueError(f"{folder}: latents.autoencoder is {name!r}; it must be a path from /, or lie beside it")
    return {**options, "latents": {**latents, "autoencoder": str(folder.resolve() / name)}}
