"""DeepSpeed ZeRO for several networks: one engine, and one stage, for each.

Lightning's own DeepSpeed strategy wraps the whole module and refuses a second optimizer. Here each trained network has
an engine of its own, the *raw* modules run (so that gradients of gradients work), and the engine whose network is not
frozen does the backward and the step. Precision, randomness and checkpoints are those of ``ddp``.

Source: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (2020).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from launch.strategies.ddp import MultiNetworkDDP
from launch.strategies.fragments import Fragment, fragments, gather


class MultiNetworkZeRO(MultiNetworkDDP):
    """ZeRO stage 0 (nothing is sharded) to 3 (parameters too) for any number of networks with optimizers of their own.

    Args:
        stage: 1 shards optimizer states, 2 gradients too, 3 parameters too. A network through which a double backward
            runs (``ImageFamily.penalised``) stays at 2, since ZeRO 3 cannot differentiate twice; a warning says so.
        offload: optimizer states (and parameters, at stage 3) live in the host's memory.
        config: raw DeepSpeed options, laid over gesso's for every engine.
        **options: as of Lightning's ``DDPStrategy``.

    Raises:
        ValueError: the stage is not 0 to 3, or ``precision`` is 16-mixed.
    """

    def __init__(
        self, stage: int = 2, offload: bool = False, config: dict[str, Any] | None = None, **options: Any
    ) -> None:
        if stage not in (0, 1, 2, 3):
            raise ValueError(f"ZeRO stage {stage}; there are 0, 1, 2 and 3")
        super().__init__(**options)
        self.stage = stage
        self.offload = offload
        self.config = config or {}
        self.engines: dict[str, Any] = {}
        self._whole = False

    # ---- engines ----------------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        if self.root_device.type == "cpu":
            # Read once, when DeepSpeed is imported; it would look for a GPU otherwise.
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        super().setup_environment()

    def setup(self, trainer: Any) -> None:
        precision = trainer.precision
        if self.stage and precision.startswith("16"):
            raise ValueError(f"precision {precision} under ZeRO: use bf16-mixed, which needs no loss scaling, or ddp")
        super().setup(trainer)
        if trainer.state.fn == TrainerFn.FITTING:
            self._start_engines(bf16=precision == "bf16-true")

    def _start_engines(self, *, bf16: bool) -> None:
        deepspeed = import_deepspeed()
        module: Any = self.lightning_module
        deepspeed.init_distributed(dist_backend=self.process_group_backend, auto_mpi_discovery=False)
        penalised = set(module.penalised()) if self.stage == 3 else set()
        if penalised:
            rank_zero_warn(f"ZeRO 3 cannot differentiate twice: {', '.join(sorted(penalised))} stays at stage 2")
        # Parameters of every group as the optimizer was given them: the order of a checkpoint.
        self._groups = {
            name: [list(group["params"]) for group in optimizer.param_groups]
            for name, optimizer in zip(module._network_names, self.optimizers, strict=True)
        }
        for name, optimizer in zip(module._network_names, self.optimizers, strict=True):
            for key, parameter in getattr(module, name).named_parameters():
                if parameter.dim() == 0:
                    raise ValueError(f"{name}.{key} is a scalar, which ZeRO cannot shard: give it the shape [1]")
            # DeepSpeed flattens weights in their logical order; convolutions still run in the images' own format.
            getattr(module, name).to(memory_format=torch.contiguous_format)
            stage = 2 if name in penalised else self.stage
            self.engines[name], *_ = deepspeed.initialize(
                model=getattr(module, name),
                model_parameters=[p for p in getattr(module, name).parameters() if p.requires_grad],
                optimizer=optimizer,
                config=self._engine_config(stage, clip=module.gradient_clip_norm, bf16=bf16),
                dist_init_required=False,
            )
        self._fragments = {name: self._pieces(name) for name in self.engines}

    def _engine_config(self, stage: int, *, clip: float | None, bf16: bool) -> dict[str, Any]:
        zero: dict[str, Any] = {"stage": stage}
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

    def _pieces(self, name: str) -> list[Fragment]:
        return fragments(self.engines[name]) if self._sharded(name) else []

    def _sharded(self, name: str) -> bool:
        return self.engines[name].zero_optimization_stage() > 0

    def _name_of(self, optimizer: Any) -> str:
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        number = next(i for i, ours in enumerate(self.optimizers) if ours is optimizer)
        return list(self.engines)[number]

    # ---- one update -------------------------------------------------------------------------------------------------

    #: The engines clip, each its own network, with the norm over all ranks.
    clips_gradients = True

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        engine = self._training_engine()
        engine.set_gradient_accumulation_boundary(self._reduce)
        if engine.zero_optimization():
            # What the engine's own forward, which is not used here, does first: ZeRO 3 counts micro-batches by it.
            engine.optimizer.clear_backward_seen_flag()
        engine.backward(closure_loss)
        if not self._reduce:
            # Tells the engine that a micro-batch is over; on a boundary, ``optimizer_step`` does.
            engine.step()
        return closure_loss

    def _training_engine(self) -> Any:
        module = self.lightning_module
        training = [
            engine
            for name, engine in self.engines.items()
            if any(p.requires_grad for p in getattr(module, name).parameters())
        ]
        assert len(training) == 1, "a backward outside ImageFamily.update"
        return training[0]

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        closure()
        self.engines[self._name_of(optimizer)].step()

    @contextlib.contextmanager
    def edited(self, name: str) -> Iterator[None]:
        """Inside, the network's weights are whole and may be changed in place, alike on every rank."""
        if not self._sharded(name):
            yield
            return
        deepspeed = import_deepspeed()
        parameters = [p for group in self._groups[name] for p in group]
        partitioned = [p for p in parameters if hasattr(p, "ds_id")]
        with deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0, enabled=bool(partitioned)):
            yield
            for piece in self._fragments[name]:
                piece.of(piece.flat).copy_(piece.cut(piece.parameter.detach()))

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Takes every partitioned network back to its slices, so that these alone say what the weights are."""
        for engine in self.engines.values():
            if engine.zero_optimization_stage() == 3:
                engine.optimizer.parameter_offload.partition_all_parameters()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, every rank holds all weights, and may run the networks as often as it likes by itself."""
        offloads = [
            engine.optimizer.parameter_offload
            for engine in self.engines.values()
            if engine.zero_optimization_stage() == 3
        ]
        if self._whole or not offloads:
            yield
            return
        self.rest()
        self._whole = True
        parameters = [parameter for offload in offloads for parameter in offload.module.parameters()]
        hooks = [
            hook
            for offload in offloads
            for hook in (offload.fwd_pre_hook, *offload.forward_hooks, *offload.backward_hooks)
        ]
        parameters[0].all_gather(param_list=parameters)
        try:
            with unhooked(hooks):
                yield
        finally:
            parameters[0].partition(param_list=parameters, has_been_updated=False)
            self._whole = False
            self.rest()

    # ---- checkpoints: whole tensors, as a single process would write them --------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        state = super().lightning_module_state_dict()
        for name in self.engines:
            if not self._sharded(name):
                continue
            masters = self._gather(name, lambda piece: piece.of(piece.flat))
            names = {id(p): f"{name}.{key}" for key, p in getattr(self.lightning_module, name).named_parameters()}
            parameters = [p for group in self._groups[name] for p in group]
            state.update({names[id(p)]: master for p, master in zip(parameters, masters, strict=True)})
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        name = self._name_of(optimizer) if self.engines else ""
        if not name or not self._sharded(name):
            return super().optimizer_state(optimizer)
        states = self.engines[name].optimizer.optimizer.state
        flats = unique(piece.flat for piece in self._fragments[name])
        example = states.get(flats[0], {}) if flats else {}
        count = sum(map(len, self._groups[name]))
        result: dict[int, dict[str, Any]] = {number: {} for number in range(count)} if example else {}
        for key, value in example.items():
            if is_moment(value, flats[0]):

                def moment(piece: Fragment, key: str = key) -> Tensor:
                    return piece.of(states[piece.flat][key])

                for number, whole in enumerate(self._gather(name, moment)):
                    result[number][key] = whole
            else:
                for number in result:
                    # Each its own: a fused optimizer counts in place, once for every parameter.
                    result[number][key] = value.clone() if isinstance(value, Tensor) else value
        return {"state": result, "param_groups": self._param_groups(name, optimizer)}

    def _param_groups(self, name: str, optimizer: Any) -> list[dict[str, Any]]:
        groups, first = [], 0
        inner = getattr(optimizer, "_optimizer", optimizer)
        for group, parameters in zip(inner.param_groups, self._groups[name], strict=True):
            options = {key: value for key, value in group.items() if key in inner.defaults}
            groups.append({**options, "params": list(range(first, first + len(parameters)))})
            first += len(parameters)
        return groups

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for name, optimizer, saved in zip(self.engines, self.optimizers, checkpoint["optimizer_states"], strict=True):
            if self._sharded(name):
                self._load_sharded(name, saved)
            else:
                optimizer.load_state_dict(saved)

    def _load_sharded(self, name: str, saved: Mapping[str, Any]) -> None:
        inner = self.engines[name].optimizer.optimizer
        numbers = {id(p): i for i, p in enumerate(p for group in self._groups[name] for p in group)}
        for piece in self._fragments[name]:
            for key, value in saved["state"].get(numbers[id(piece.parameter)], {}).items():
                state = inner.state[piece.flat]
                if isinstance(value, Tensor) and value.dim() > 0:
                    moment = state.setdefault(key, torch.zeros_like(piece.flat))
                    piece.of(moment).copy_(piece.cut(value))
                else:
                    state[key] = value.clone() if isinstance(value, Tensor) else value
        for group, theirs in zip(inner.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in theirs.items() if key != "params"})

    def _gather(self, name: str, of: Callable[[Fragment], Tensor]) -> list[Tensor]:
        parameters = [p for group in self._groups[name] for p in group]
        return gather(parameters, self._fragments[name], of, device=self.root_device)

    def teardown(self) -> None:
        for engine in self.engines.values():
            engine.destroy()
        self.engines = {}
        super().teardown()

    def _destroy_process_group(self) -> None:
        # DeepSpeed keeps groups of its own, which the next training in this process must not find.
        import_deepspeed().comm.destroy_process_group()


@contextlib.contextmanager
def unhooked(handles: list[Any]) -> Iterator[None]:
    """Takes hooks off their modules, and puts them back in their order."""
    taken = [(handle, handle.hooks_dict_ref().pop(handle.id)) for handle in handles]
    try:
        yield
    finally:
        for handle, hook in taken:
            handle.hooks_dict_ref()[handle.id] = hook


def is_moment(value: Any, flat: Tensor) -> bool:
    """Whether an optimizer's state has an entry for every element, as against one for all (Adam's step)."""
    return isinstance(value, Tensor) and value.shape == flat.shape and value.dim() > 0


def unique(tensors: Any) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """``theirs`` over ``ours``, nested options one by one."""
    result = dict(ours)
    for key, value in theirs.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def import_deepspeed() -> Any:
    """DeepSpeed, without its chatter; imported late, since it takes seconds."""
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    return deepspeed


def register() -> None:
    """Makes ``trainer.strategy: zero0`` ... ``zero3``, ``zero2_offload``, ``zero3_offload`` known by name."""
    for stage in (0, 1, 2, 3):
        for offload in (False, True) if stage >= 2 else (False,):
            name = f"zero{stage}{'_offload' if offload else ''}"
            if name not in StrategyRegistry:
                StrategyRegistry.register(
                    name,
                    MultiNetworkZeRO,
                    description=f"ZeRO stage {stage} for several networks",
                    stage=stage,
                    offload=offload,
                )
