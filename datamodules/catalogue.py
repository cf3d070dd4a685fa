"""The data modules by name: ours, and those that installed packages declare under ``gesso.data``."""

from __future__ import annotations

from gesso.common.catalogues import Catalogue

DATA = Catalogue(
    kind="data module",
    group="gesso.data",
    own={"ContentStyleData": "datamodules.paired", "ShardData": "datamodules.shards"},
)
