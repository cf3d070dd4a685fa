"""DeepSpeed ZeRO for several networks: one engine, and one stage, for each.

Lightning's own DeepSpeed strategy wraps the whole module and refuses a second optimizer. Here each trained network has
an engine of its own, the *raw* modules run (so that gradients of gradients work), and the engine whose network is not
frozen does the backward and the step; of several networks that are updated together, the first one's does the backward.
Precision, randomness and checkpoints are those of ``ddp``.

Source: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (2020).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from gesso.common.extras import needing
from launch.callbacks.lookup import family_of
from launch.strategies.ddp import MultiNetworkDDP
from launch.strategies.deepspeed_internals import (
    Engine,
    are_finite,
    finish_backward,
    gradient_norms,
    leave_out_compiled_collective,
    overflowed,
    prepare_backward,
    restore_linear,
    stepping_by,
    torchs_linear,
)
from launch.strategies.messages import BUCKET_BYTES
from launch.strategies.shards import Shards
from lightning_modules.core.stability import LossScalePerNetwork, advance


class MultiNetworkZeRO(MultiNetworkDDP):
    """ZeRO for any number of networks with optimizers of their own.

    Args:
        stage: 1 shards optimizer states, 2 gradients too, 3 weights too (0 would shard nothing: that is ``ddp``).
            A network that ``ImageFamily.requires_double_backward`` names stays at 2, since ZeRO 3 cannot differentiate
            twice; a warning says so.
        offload: optimizer states (and parameters, at stage 3) live in the host's memory.
        config: raw DeepSpeed options, laid over gesso's for every engine.
        **options: as of Lightning's ``DDPStrategy``.

    Raises:
        ValueError: the stage is not 1, 2 or 3.
    """

    def __init__(
        self, stage: int = 2, offload: bool = False, config: dict[str, Any] | None = None, **options: Any
    ) -> None:
        if stage not in (1, 2, 3):
            raise ValueError(f"ZeRO stage {stage}; there are 1, 2 and 3, and stage 0 is the strategy ddp")
        super().__init__(**options)
        self.stage = stage
        self.offload = offload
        self.config = config or {}
        self.engines: dict[str, Engine] = {}
        #: What this rank holds of each network, by its name.
        self.shards: dict[str, Shards] = {}
        self._whole = False

    # ---- engines ----------------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        if self.root_device.type == "cpu":
            # Read once, when DeepSpeed is imported; it would look for a GPU otherwise.
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super().setup_environment()

    def setup(self, trainer: L.Trainer) -> None:
        super().setup(trainer)
        if trainer.state.fn == TrainerFn.FITTING:
            self._start_engines(bf16=trainer.precision == "bf16-true")

    def _start_engines(self, *, bf16: bool) -> None:
        deepspeed = import_deepspeed()
        module = family_of(self.lightning_module)
        if self.root_device.type == "cpu":
            leave_out_compiled_collective(deepspeed)
        deepspeed.init_distributed(dist_backend=self.process_group_backend, auto_mpi_discovery=False)
        twice = set(module.requires_double_backward()) if self.stage == 3 else set()
        if twice:
            rank_zero_warn(f"ZeRO 3 cannot differentiate twice: {', '.join(sorted(twice))} stays at stage 2")
        for name, optimizer in zip(module.trained_networks, self.optimizers, strict=True):
            network = getattr(module, name)
            if refusal := zero_refusal(name, network, optimizer):
                raise ValueError(refusal)
            # DeepSpeed flattens weights in their logical order; convolutions still run in the images' own format.
            network.to(memory_format=torch.contiguous_format)
            # As the optimizer was given them, which is how a checkpoint counts them.
            groups = [list(group["params"]) for group in optimizer.param_groups]
            stage = 2 if name in twice else self.stage
            engine, *_ = deepspeed.initialize(
                model=network,
                model_parameters=[p for p in network.parameters() if p.requires_grad],
                optimizer=optimizer,
                config=self._engine_config(stage, clip=module.gradient_clip_norm, bf16=bf16),
                dist_init_required=False,
            )
            self.engines[name] = engine
            self.shards[name] = Shards(engine, groups, [f"{name}.{key}" for key in module.parameter_names[name]])

    def _engine_config(self, stage: int, *, clip: float | None, bf16: bool) -> dict[str, Any]:
        # DeepSpeed's default buffers, 2 GB each, outweigh these networks.
        numbers = BUCKET_BYTES // 4
        zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": numbers, "allgather_bucket_size": numbers}
        if stage == 3:
            # Nothing stays whole behind our back: evaluation exchanges weights in place.
            zero["stage3_param_persistence_threshold"] = 0
        if self.offload:
            zero["offload_optimizer"] = {"device": "cpu"}
            if stage == 3:
                zero["offload_param"] = {"device": "cpu"}
        ours = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**62,
            "bf16": {"enabled": bf16},
            "zero_optimization": zero,
        }
        return merged(ours, self.config)

    # ---- one update -------------------------------------------------------------------------------------------------

    def backward(
        self,
        closure_loss: Tensor,
        optimizer: Optimizer | None,
        *args: object,
        gradient: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor:
        module = family_of(self.lightning_module)
        first, *others = engines = [self.engines[name] for name in module.updating]
        scaler = self._scaler()
        scale = scaler.get_scale() if scaler is not None else None
        for engine in engines:
            engine.set_gradient_accumulation_boundary(self._reduce)
            prepare_backward(engine, scale)
        # All engines' hooks on their own parameters take up the gradients of this one backward.
        first.backward(closure_loss if gradient is None else closure_loss * gradient)
        for engine in others:
            finish_backward(engine)
        if not self._reduce:
            # Tells the engine that a micro-batch is over; on a boundary, ``optimizer_step`` does.
            for engine in engines:
                engine.step()
        return closure_loss

    def _scaler(self) -> torch.amp.GradScaler | None:
        """The loss scale of the network that is being updated, in 16-mixed."""
        plugin = self.precision_plugin
        return plugin.scaler if isinstance(plugin, LossScalePerNetwork) else None

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], object], model: Module | None = None, **kwargs: object
    ) -> None:
        closure()
        module = family_of(self.lightning_module)
        engine = self.engines[module.stepping]
        engine.step()
        overflow = overflowed(engine)
        module.note_skipped(overflow)
        if (scaler := self._scaler()) is not None:
            advance(scaler, overflow=overflow)

    @contextlib.contextmanager
    def skipped_alike(self, names: Sequence[str]) -> Iterator[None]:
        """Context manager: these networks' engines all step, or all find an overflow if one of them would."""
        engines = [self.engines[name] for name in names]
        # Of the ranks' gradients together: all ranks decide alike.
        norms = [gradient_norms(engine) for engine in engines]
        if not are_finite(norm for own in norms for norm in own):
            norms = [[torch.full_like(norm, torch.nan) for norm in own] for own in norms]
        with contextlib.ExitStack() as stack:
            for engine, own in zip(engines, norms, strict=True):
                stack.enter_context(stepping_by(engine, own))
            yield

    @contextlib.contextmanager
    def edited(self, name: str) -> Iterator[None]:
        """Context manager: gathers the network's full weights for in-place edits; all ranks must edit alike."""
        shards = self.shards[name]
        partitioned = list(shards.parameters.values()) if shards.partitioned else []
        with import_deepspeed().zero.GatheredParameters(partitioned, modifier_rank=0, enabled=bool(partitioned)):
            yield
            shards.take_over()

    # ---- evaluation -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def unhooked(self, name: str) -> Iterator[None]:
        """Context manager: ZeRO 3 does not gather the network's weights when it is called; it is given others."""
        shards = self.shards.get(name)
        if self._whole or shards is None or not shards.partitioned:
            yield
            return
        with unhooked(hooks_of(shards)):
            yield

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Context manager: every rank holds all full weights, and may run the networks independently of the others."""
        partitioned = [shards for shards in self.shards.values() if shards.partitioned]
        if self._whole or not partitioned:
            yield
            return
        for shards in partitioned:
            shards.rest()
        self._whole = True
        offloads = [shards.engine.optimizer.parameter_offload for shards in partitioned]
        parameters = [parameter for offload in offloads for parameter in offload.module.parameters()]
        hooks = [hook for own in partitioned for hook in hooks_of(own)]
        parameters[0].all_gather(param_list=parameters)
        try:
            with unhooked(hooks), torchs_linear():
                yield
        finally:
            parameters[0].partition(param_list=parameters, has_been_updated=False)
            self._whole = False
            for shards in partitioned:
                shards.rest()

    # ---- checkpoints: whole tensors, as a single process would write them --------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        state = super().lightning_module_state_dict()
        for shards in self.shards.values():
            state.update(shards.gathered(shards.masters()))
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        for ours, shards in zip(self.optimizers, self.shards.values(), strict=False):
            if ours is optimizer:
                return shards.optimizer_state(optimizer)
        return super().optimizer_state(optimizer)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for shards, saved in zip(self.shards.values(), checkpoint["optimizer_states"], strict=True):
            shards.load_optimizer_state(saved)
            # The weights have been restored already, but perhaps rounded to bf16.
            shards.take_over(checkpoint["state_dict"])

    def teardown(self) -> None:
        engines, self.engines, self.shards = list(self.engines.values()), {}, {}
        with contextlib.ExitStack() as each:
            each.callback(super().teardown)
            each.callback(restore_linear)
            for engine in engines:
                each.callback(engine.destroy)

    def _destroy_process_group(self) -> None:
        # DeepSpeed keeps groups of its own, which the next training in this process must not find.
        comm = import_deepspeed().comm
        if comm.is_initialized():
            comm.destroy_process_group()
        else:
            # What began this training failed before DeepSpeed knew the group.
            super()._destroy_process_group()


def zero_refusal(name: str, network: Module, optimizer: Optimizer) -> str | None:
    """Why ZeRO cannot train the network ``name`` with this optimizer, in one line; None: it can."""
    if getattr(optimizer, "needs_whole_weights", False):
        return (
            f"{name}: {type(optimizer).__name__} needs whole weight matrices, of which ZeRO keeps flat slices: "
            "choose another optimizer (adamw), or --trainer.strategy ddp"
        )
    scalars = [key for key, parameter in network.named_parameters() if parameter.dim() == 0]
    return f"{name}.{scalars[0]} is a scalar, which ZeRO cannot shard: give it the shape [1]" if scalars else None


def hooks_of(shards: Shards) -> list[Any]:
    """Handles of the hooks with which ZeRO 3 gathers a network's weights and lets them go."""
    offload = shards.engine.optimizer.parameter_offload
    return [offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks]


@contextlib.contextmanager
def unhooked(handles: list[Any]) -> Iterator[None]:
    """Context manager: removes hooks from their modules, and restores them in their order."""
    taken = [(handle, handle.hooks_dict_ref().pop(handle.id)) for handle in handles]
    try:
        yield
    finally:
        for handle, hook in taken:
            handle.hooks_dict_ref()[handle.id] = hook


def merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """``theirs`` over ``ours``, nested options one by one."""
    result = dict(ours)
    for key, value in theirs.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def import_deepspeed() -> ModuleType:
    """Imports DeepSpeed with logging of errors alone; late, since the import takes seconds."""
    with needing("zero"):
        import deepspeed
        from deepspeed.utils import logger

    logger.setLevel("ERROR")
    return deepspeed


def register() -> None:
    """Makes ``trainer.strategy: zero0`` ... ``zero3``, ``zero2_offload``, ``zero3_offload`` known by name."""
    if "zero0" in StrategyRegistry:
        return
    StrategyRegistry.register("zero0", MultiNetworkDDP, description="ZeRO stage 0 shards nothing: the same as ddp")
    for stage in (1, 2, 3):
        for offload in (False, True) if stage >= 2 else (False,):
            StrategyRegistry.register(
                f"zero{stage}{'_offload' if offload else ''}",
                MultiNetworkZeRO,
                description=f"ZeRO stage {stage} for several networks",
                stage=stage,
                offload=offload,
            )
