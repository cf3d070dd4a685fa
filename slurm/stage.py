"""Copies the shards that one node's ranks will read to the node's disk (`gesso slurm submit --stage`)."""

from __future__ import annotations

import os
from typing import Any

from datamodules.building.progress import Bar
from datamodules.shards import ShardData
from datamodules.streaming.staging import STAGED, shards_read, stage, staged_folder
from gesso.common.strict_yaml import read_mapping
from launch.runs.folder import RunFolder


def stage_node(run: RunFolder) -> None:
    """Copies the shards that this node's ranks read until the run's end to the folder named by ``GESSO_STAGED``."""
    config: dict[str, Any] = read_mapping(run.config, what="run's config")
    tasks, nodes = int(config["trainer"]["devices"]), int(config["trainer"]["num_nodes"])
    root = os.environ.pop(STAGED)
    data = ShardData(**config["data"]["init_args"])
    manifest = data.manifest
    folder = staged_folder(manifest, root)
    node = int(os.environ["SLURM_NODEID"])
    ranks = range(node * tasks, (node + 1) * tasks)
    start, stop = int(run.info().get("images_seen") or 0), round(float(config["run"]["kimg"]) * 1000)
    shards = shards_read(manifest, data.training_order(), ranks, nodes * tasks, start, max(start, stop))
    sizes = [shard.bytes for shard in manifest.split("train").shards]
    size = sum(sizes[number] for number in shards)
    with Bar() as bar:
        bar.start(f"stage to {folder}", size)
        stage(manifest, folder, shards, progress=bar.advance)
    print(f"staged {len(shards)} of {len(sizes)} training shards, {size / 1e9:.2f} GB, in {folder}")
