"""Memory that a family needs, measured with its own networks, optimizers and losses, without training."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import lightning as L
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from launch.callbacks.ema import EMA
from launch.callbacks.lookup import find
from launch.planning.memory import STRATEGIES, Group, Network, rows
from launch.strategies.zero import MultiNetworkZeRO, zero_refusal
from lightning_modules.core.family import Batch, ImageFamily, Losses
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.options import constructor_options, paths, replaced

#: Number of steps after which every network should have been updated (``n_critic`` and the like).
MOST_STEPS = 100
#: So many images into a training, everything in it has begun.
LATE = 10**15


# ---- networks and optimizers ----------------------------------------------------------------------------------------


def networks(module: ImageFamily, *, ema: int = 1) -> list[Network]:
    """The family's networks, the trained ones first and frozen helpers last, with what their optimizers keep.

    Every optimizer makes one real step on zero gradients, parameter by parameter.

    Args:
        module: the family; frozen helpers count once its published weights are loaded.
        ema: moving averages of the generating networks that the run keeps; the family's own are added.
    """
    twice = set(module.requires_double_backward())
    averages = Counter(name for average in module.own_averages().values() for name in average.networks)
    averages.update(dict.fromkeys(module.generating_networks(), ema))
    optimizers = module.optimizers_by_network()
    found = []
    for name in [*optimizers, *(name for name, _ in module.named_children() if name not in optimizers)]:
        network = getattr(module, name)
        groups = _groups(optimizers[name]) if name in optimizers else ()
        trained = {id(p) for group in optimizers[name].param_groups for p in group["params"]} if groups else set()
        found.append(
            Network(
                name=name,
                groups=groups,
                frozen=tuple(p.numel() for p in network.parameters() if id(p) not in trained),
                buffer_bytes=sum(buffer.nbytes for buffer in network.buffers()),
                averages=averages[name],
                requires_double_backward=name in twice,
                zero_refusal=zero_refusal(name, network, optimizers[name]) if name in optimizers else None,
            )
        )
    found += [_helper(name, child.network) for name, child in module.named_modules() if isinstance(child, Frozen)]
    # Regularisers and augmentation keep a few numbers, and are no networks.
    return [network for network in found if network.groups or network.frozen]


def _helper(name: str, network: torch.nn.Module) -> Network:
    sizes = tuple(parameter.numel() for parameter in network.parameters())
    return Network(
        name=name.removeprefix("_"),
        groups=(),
        frozen=sizes,
        buffer_bytes=sum(buffer.nbytes for buffer in network.buffers()),
    )


def _groups(optimizer: Optimizer) -> tuple[Group, ...]:
    groups = []
    for group in optimizer.param_groups:
        states = [_states_after_a_step(optimizer, parameter) for parameter in group["params"]]
        numels = tuple(parameter.numel() for parameter in group["params"])
        elementwise = sum(
            sum(s.nbytes for s in state if s.dim() and s.numel() == numel)
            for state, numel in zip(states, numels, strict=True)
        )
        whole = sum(s.nbytes for state in states for s in state)
        groups.append(
            Group(
                numels=numels,
                state_bytes=whole,
                state_per_element=elementwise / sum(numels),
                state_per_tensor=(whole - elementwise) // len(numels),
            )
        )
    return tuple(groups)


def _states_after_a_step(optimizer: Optimizer, parameter: Tensor) -> list[Tensor]:
    # One parameter at a time, so that planning needs little more memory than the weights.
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    parameter.grad = None
    return [value for value in optimizer.state.pop(parameter, {}).values() if isinstance(value, Tensor)]


def rank_needs(trainer: L.Trainer, module: ImageFamily, images: int, *, ranks: int) -> int:
    """Peak bytes on a rank's device, under the trainer's strategy and precision.

    Args:
        trainer: its strategy, precision and callbacks count.
        module: the family.
        images: images per rank and micro-batch.
        ranks: number of ranks.
    """
    strategy = trainer.strategy
    stage, offload = (strategy.stage, strategy.offload) if isinstance(strategy, MultiNetworkZeRO) else (0, False)
    alike = [s for s in STRATEGIES if (s.stage, s.offload) == (stage, offload)]
    (row,) = rows(networks(module, ema=ema_count(trainer)), alike[:1], ranks=ranks, micro_batches=module.micro_batches)
    return row.device.total + max(activations(module, images, autocast="mixed" in str(trainer.precision)).values())


def ema_count(trainer: L.Trainer) -> int:
    """Number of moving averages of the generating networks that the trainer's ``EMA`` keeps; 0 without one."""
    ema = find(trainer, EMA)
    return len(ema.named()) if ema else 0


# ---- activations ----------------------------------------------------------------------------------------------------


def activations(module: ImageFamily, count: int, *, autocast: bool) -> dict[str, int]:
    """Peak bytes, by network, beside weights and gradients, of one update of it with ``count`` images.

    Networks that are updated together each count the whole of their common update.

    Runs the family's own step forwards and backwards on tensors that have shapes but no memory, and follows each from
    its making to its end: the batch, activations, what checkpointing recomputes, 16-bit copies of weights. Kernels'
    workspaces are not seen.

    Args:
        module: on the CPU, without a trainer; its weights stay as they are.
        autocast: as bf16-mixed or 16-mixed training does.
    """
    peaks: dict[str, int] = {}
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def update(
        names: str | Sequence[str], losses: Callable[[Batch], Losses], batch: Batch, *, log_loss: bool = True
    ) -> None:
        together = (names,) if isinstance(names, str) else tuple(names)
        values = [value for value in batch.values() if isinstance(value, Tensor)]
        memory = Memory([*map(fake.from_tensor, [*module.parameters(), *module.buffers()]), *values])
        with module.freezing_others(*together), _no_gradients_kept(getattr(module, name) for name in together):
            with memory:
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = losses(batch)["loss"]
                loss.backward()
            torch.clear_autocast_cache()
        for name in together:
            # The largest of several updates.
            peaks[name] = max(peaks.get(name, 0), memory.peak + sum(value.nbytes for value in values))

    with ready(module, update), fake:
        batch = example_batch(module, count)
        while not set(module.trained_networks) <= peaks.keys() and module.steps_done < MOST_STEPS:
            module.step(batch)
            module.steps_done += 1
            # Some networks begin after so many images.
            module.images_seen = LATE
    return peaks


def example_batch(module: ImageFamily, count: int) -> Batch:
    """The family's own example of a batch, its images in the networks' memory format."""
    batch = module.example_batch(count)
    images = {key: batch[key].contiguous(memory_format=module.memory_format) for key in module.batch_spec().images}
    return {**batch, **images}


def with_checkpointing(module: ImageFamily, on: bool) -> ImageFamily | None:
    """The same family with gradient checkpointing on or off; None where it has no such option."""
    options = constructor_options(module.hparams)
    if not any(paths(options, "gradient_checkpointing")):
        return None
    other = type(module).from_options(replaced(options, "gradient_checkpointing", on))
    other.total_kimg = module.total_kimg
    return other


class Memory(TorchDispatchMode):
    """Dispatch mode that tracks the bytes of all tensors that operations create, backward and recomputation included.

    Args:
        known: tensors that do not count.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        # References, so that no other storage gets the same identity.
        self._known = [tensor.untyped_storage() for tensor in known]
        self._seen = {storage._cdata for storage in self._known}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        if size and identity not in self._seen:
            self._seen.add(identity)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self._seen.discard(identity)
        self.live -= size


@contextmanager
def ready(module: ImageFamily, update: Callable[..., None]) -> Iterator[None]:
    """Context manager: the module is set up as in training on one rank, and calls ``update`` instead of its own."""
    module.trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    compiled, module.compile_networks = module.compile_networks, False
    seen = module.images_seen
    module.configure_optimizers()
    module.update = update  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.update
        module.compile_networks, module.steps_done, module.trainer = compiled, 0, None
        module.images_seen = seen


@contextmanager
def _no_gradients_kept(networks: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Context manager: drops a weight's gradient as soon as it is complete: it is counted elsewhere."""

    def drop(parameter: Tensor) -> None:
        parameter.grad = None

    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(drop) for p in parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
