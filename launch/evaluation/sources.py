"""The data on which a run is evaluated: that of its config, or given shard sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.catalogue import data_module, data_module_of
from datamodules.shards import ShardData
from gesso.common.strict_yaml import read_mapping
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import Evaluator


@dataclass(frozen=True)
class Asked:
    """The pictures that an evaluation of a run was asked to take instead of the run's own; None: not asked.

    Args:
        data: shard set of the pictures that the run makes others of, or else of the real ones to compare with.
        second: shard set of the second stream: the styles, or domain B.
        against: shard set of the real pictures to compare with.
        split: of the pictures that the run makes others of.
        reference_split: of the real pictures.
        reference_samples: number of the real pictures.
        names: field -> the option in the caller's words, for error messages.
    """

    names: Mapping[str, str]
    data: str | None = None
    second: str | None = None
    against: str | None = None
    split: str | None = None
    reference_split: str | None = None
    reference_samples: int | None = None


def given_sets(evaluator: Evaluator, asked: Asked) -> dict[str, str | None]:
    """The shard sets that come in the place of the run's own, as ``data_of`` takes them.

    Raises:
        ValueError: something was asked for that this evaluator cannot heed, or one set was named twice.
    """
    source, references, names = evaluator.source, evaluator.references, asked.names
    if asked.split is not None and source is None:
        raise ValueError(
            f"{names['split']} {asked.split}: the run makes pictures of no others; {names['reference_split']} names "
            "the split of real ones to compare with"
        )
    comparing = [field for field in ("against", "reference_split", "reference_samples") if getattr(asked, field)]
    if comparing and not references:
        raise ValueError(
            f"{names[comparing[0]]}: these metrics compare with no set; {names['data']} and {names['second']} name a "
            "run's pictures"
        )
    own = source is not None and all(pictures.key == source.key for pictures in references)
    if own and comparing and comparing[0] != "reference_samples":
        raise ValueError(
            f"{names[comparing[0]]}: what the run makes of pictures is compared with these pictures themselves; "
            f"{names['data']} and {names['split']} name others"
        )
    given: dict[str, str | None] = {"path": None, "second": asked.second}
    # What a run translates may be either of its two streams.
    wanted = [("data", asked.data, "path" if source is None or source.key == "image" else "second")]
    # A run that generates is compared with its one stream, one that translates with the other one.
    first = all(pictures.key == "image" for pictures in references)
    wanted.append(("against", asked.against, "path" if first else "second"))
    for field, shards, stream in wanted:
        if shards is None:
            continue
        if given[stream] is not None:
            raise ValueError(f"{names[field]} {shards}: {given[stream]} is named for the same; leave one out")
        given[stream] = shards
    return given


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
    if given.get("second") and not others:
        raise ValueError(f"{given['second']}: {module.described()} takes one set of pictures; leave the second one out")
    named = {first: given.get("path"), **{option: given.get("second") for option in others}}
    options |= {option: path for option, path in named.items() if path}
    if missing := [option for option in named if not options.get(option)]:
        flags = " and ".join("--data" if option == first else "--style-data" for option in missing)
        raise ValueError(f"{checkpoint}: its run's config.yaml is not beside it; name the shard set with {flags}")
    # Another set may have pictures of another size, or grey ones.
    wanted: dict[str, Any] = {} if spec.latents else {"size": spec.resolution, "channels": spec.channels}
    return kind(**{**options, **{name: value for name, value in wanted.items() if value is not None}})
