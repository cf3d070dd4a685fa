"""Notes in run.json what a training rests on: data, batch, seed, parameters, what scores compare with, machine."""

from __future__ import annotations

import os
from typing import Any

import lightning as L

from datamodules.shards import ShardData
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.lookup import family_of, find, run_folder
from launch.evaluation.driver import compared_with
from launch.runs.machine import machine_facts
from launch.training.lightning_internals import data_of
from lightning_modules.core.family import ImageFamily


class Facts(L.Callback):
    """The report and whoever compares two runs read these: nobody has to know where in config.yaml they stand."""

    def __init__(self) -> None:
        self._parameters: dict[str, int] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Now: ZeRO will cut the networks into shards.
        self._parameters = parameters(family_of(pl_module))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data, evaluation = data_of(trainer), find(trainer, Evaluation)
        evaluator = evaluation.evaluator(family_of(pl_module)) if evaluation else None
        run_folder(trainer).update(
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")),
            parameters=self._parameters,
            data=[described(stream) for stream in data.streams().values()] if data else [],
            global_batch_size=data.global_batch_size if data else None,
            compared_with=compared_with(evaluator, data) if evaluator and data else [],
            **machine_facts(family_of(pl_module).device),
        )


def parameters(module: ImageFamily) -> dict[str, int]:
    """How many parameters each trained network has."""
    return {
        name: sum(parameter.numel() for parameter in getattr(module, name).parameters())
        for name in module.optimization()
    }


def described(stream: ShardData) -> dict[str, Any]:
    """A shard set as a training sees it."""
    manifest = stream.manifest
    return {
        "name": manifest.name,
        "images": manifest.split("train").samples,
        "fingerprint": manifest.fingerprints["train"],
        "size": stream.size,
        "channels": stream.channels,
        "classes": len(manifest.classes),
        "path": str(stream.path),
        **({"latents": True} if manifest.latents is not None else {}),
    }
