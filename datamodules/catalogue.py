"""The data modules by name: ours, and those that installed packages declare under ``gesso.data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gesso.common.catalogues import Catalogue

if TYPE_CHECKING:
    from datamodules.shards import ShardData

DATA = Catalogue(
    kind="data module",
    group="gesso.data",
    # The simplest first.
    own={
        "ShardData": "datamodules.shards",
        "ContentStyleData": "datamodules.paired",
        "UnpairedData": "datamodules.paired",
    },
)


def data_module(class_path: str) -> type[ShardData]:
    """The data module that a run's config names, with or without its module; looked up by its name alone.

    Raises:
        ValueError: there is none of this name.
    """
    return DATA.find(class_path.rpartition(".")[2])


def data_module_of(keys: frozenset[str]) -> type[ShardData]:
    """The simplest of our data modules whose batches have these images: ``image``, or ``image`` and ``style`` ...

    Raises:
        ValueError: there is none.
    """
    for name in DATA.own:
        found = data_module(name)
        if keys <= set(found.path_options().values()):
            return found
    raise ValueError(f"no data module of gesso has batches with {', '.join(sorted(keys))}")
