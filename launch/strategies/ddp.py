"""Data parallelism for several networks that are updated one after the other."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import Module

from launch.runs.folder import RunFolder
from launch.strategies.gradients import OverlappedReduction
from launch.strategies.messages import Message, buckets
from launch.strategies.shared_buffers import SharedBuffers
from launch.strategies.supervision import SupervisedLauncher, Supervision
from lightning_modules.networks.batch_norm import synchronise_


class MultiNetworkDDP(DDPStrategy):
    """DDP without the wrapper around the module.

    torch's ``DistributedDataParallel`` wants one forward through itself for each backward, and every parameter to
    take part; a GAN updates half of its parameters at a time, and takes gradients of gradients. Here the raw module
    runs, and the gradients of the network that is not frozen are averaged over the ranks, bucket by bucket, while its
    backward pass goes on. Buffers (batch norm's running statistics) follow rank 0, as in torch's DDP, so that all ranks
    hold one model.

    Args:
        compress_gradients: send gradients in bfloat16: half the bytes, and their last 16 bits lost.
        options: of Lightning's ``DDPStrategy``.
    """

    _reduce = True
    _reduction: OverlappedReduction | None = None
    _buffers: SharedBuffers | None = None
    #: Watches the other ranks on this machine, where gesso has started them.
    supervision: Supervision | None = None

    def __init__(self, *, compress_gradients: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._compress = compress_gradients

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        # A strategy that was told to fork or spawn its ranks keeps Lightning's launcher for that.
        if isinstance(self._launcher, _SubprocessScriptLauncher):
            assert self.cluster_environment is not None
            self._launcher = SupervisedLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        if isinstance(self._launcher, SupervisedLauncher):
            self.supervision = self._launcher.supervision(self.record_failure)
        if self.supervision is not None:
            self.supervision.start()
        super().setup_environment()

    def record_failure(self, reason: str) -> None:
        """Records in run.json why this rank, which hangs, is killed."""
        assert self.lightning_module is not None
        run = RunFolder(Path(self.lightning_module.trainer.default_root_dir))
        if run.info():
            rank_zero_only(run.update)(state="failed", error=reason)

    def setup(self, trainer: L.Trainer) -> None:
        if self._layer_sync is not None:
            # trainer.sync_batchnorm: true; torch's own layer knows neither the CPU, nor labels, nor penalties.
            self._layer_sync = BatchNormSync()
        super().setup(trainer)

    def configure_ddp(self) -> None:
        assert self.model is not None
        for tensors in buckets([*self.model.parameters(), *self.model.buffers()]):
            Message(tensors).broadcast()

    def _setup_model(self, model: Module) -> Module:  # type: ignore[override]
        return model

    def pre_backward(self, closure_loss: Tensor) -> None:
        super().pre_backward(closure_loss)
        if self.world_size == 1:
            return
        assert self.model is not None
        if self._reduction is None:
            self._reduction = OverlappedReduction(list(self.model.parameters()), compress=self._compress)
        self._reduction.begin(getattr(self.lightning_module, "updating", ()), last=self._reduce)

    def post_backward(self, closure_loss: Tensor) -> None:
        if self._reduction is not None:
            self._reduction.finish() if self._reduce else self._reduction.keep()

    def share_buffers(self) -> None:
        """Gives every rank the first one's buffers, at a step's end and before averages take them up.

        Only those that have changed: batch norm's statistics and the like, not the filters that a network keeps.
        """
        assert self.model is not None
        if self._buffers is None:
            self._buffers = SharedBuffers(self.model)
        self._buffers.share()

    def teardown(self) -> None:
        if self.supervision is not None and sys.exc_info()[0] is None:
            self.supervision.stop()
        if self._reduction is not None:
            self._reduction.close()
        self._reduction = self._buffers = None
        super().teardown()
        # Lightning leaves the group to the interpreter's end, where gloo's threads may abort the process.
        if dist.is_initialized():
            self._destroy_process_group()

    def _destroy_process_group(self) -> None:
        dist.destroy_process_group()

    @contextlib.contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Context manager: gradients add up locally; the next backward outside averages the sum over the ranks."""
        self._reduce = False
        try:
            yield
        finally:
            self._reduce = True


class BatchNormSync(LayerSync):
    """Lightning plugin that makes batch norm use the statistics of all ranks."""

    def apply(self, model: Module) -> Module:
        synchronise_(model)
        return model

    def revert(self, model: Module) -> Module:
        return model


def register() -> None:
    """Makes ``trainer.strategy: ddp`` this strategy."""
    if "ddp" in StrategyRegistry:
        StrategyRegistry.remove("ddp")
    StrategyRegistry.register("ddp", MultiNetworkDDP, description="data parallelism for several networks")
