"""The data on which a run is evaluated: that of its config, or given shard sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.catalogue import data_module, data_module_of
from datamodules.shards import ShardData
from gesso.common.strict_yaml import read_mapping
from lightning_modules.core.family import ImageFamily


def data_of(checkpoint: Path, module: ImageFamily, given: Mapping[str, str | None]) -> ShardData:
    """The data module to evaluate a family on, at the family's resolution.

    Args:
        checkpoint: of the run; its config.yaml names the data.
        module: the family.
        given: other shard sets to use: ``path``, and ``second`` for a second stream.

    Raises:
        ValueError: the run's config is not beside the checkpoint, and no shard sets are given.
    """
    spec = module.batch_spec()
    config = checkpoint.parent.parent / "config.yaml"
    if config.is_file():
        try:
            section: Any = read_mapping(config, what="run's config")["data"]
            kind, options = data_module(section["class_path"]), dict(section.get("init_args") or {})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{config}: no run's config ({type(error).__name__}: {error})") from error
    else:
        kind, options = data_module_of(frozenset(spec.images)), {}
    first, *others = kind.path_options()
    named = {first: given.get("path"), **{option: given.get("second") for option in others}}
    options |= {option: path for option, path in named.items() if path}
    if missing := [option for option in named if not options.get(option)]:
        flags = " and ".join("--data" if option == first else "--style-data" for option in missing)
        raise ValueError(f"{checkpoint}: its run's config.yaml is not beside it; name the shard set with {flags}")
    # Another set may have pictures of another size, or grey ones.
    wanted: dict[str, Any] = {} if spec.latents else {"size": spec.resolution, "channels": spec.channels}
    return kind(**{**options, **{name: value for name, value in wanted.items() if value is not None}})
