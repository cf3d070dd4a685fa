"""The moving average of the generating networks, with which previews and evaluation are made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor

from launch.callbacks.lookup import find
from launch.strategies.shards import Shards
from lightning_modules.core.family import ImageFamily


class EMA(L.Callback):
    """Exponential moving average of weights, its length counted in images.

    As in StyleGAN2 and EDM (Karras et al. 2020, 2022): beta = 0.5^(batch / half-life), and the half-life is never more
    than ``ramp_up`` of the images seen, so that early averages forget the initialisation.

    Args:
        half_life_kimg: after so many thousand images a weight counts half.
        ramp_up: share of the images seen that bounds the half-life; 0: no bound.
    """

    def __init__(self, half_life_kimg: float = 10.0, ramp_up: float = 0.05) -> None:
        self.half_life_kimg = half_life_kimg
        self.ramp_up = ramp_up
        #: fp32, by name in the module; of a network that ZeRO shards only this rank's slices, flat.
        self.average: dict[str, Tensor] = {}
        self._shards: dict[str, Shards] = {}
        self._in_place = False
        self._validation = contextlib.ExitStack()

    def state_dict(self) -> dict[str, Any]:
        wholes = {
            name: whole
            for shards in self._shards.values()
            for name, whole in shards.whole(self._slices(shards)).items()
        }
        return {"average": {name: wholes.get(name, mean) for name, mean in self.average.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = state_dict["average"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        networks = pl_module.generating_networks()
        sharded: dict[str, Shards] = getattr(trainer.strategy, "shards", {})
        self._shards = {name: shards for name, shards in sharded.items() if name in networks}
        followed = self._followed(pl_module)
        # Keeps what a checkpoint brought; the shapes were checked with the module's own.
        brought, self.average = self.average, {name: in_fp32(tensor).clone() for name, tensor in followed.items()}
        slicing = {name: shards for shards in self._shards.values() for name in shards.parameters}
        for name in brought.keys() & followed.keys():
            mean = slicing[name].cut(name, brought[name]) if name in slicing else brought[name]
            self.average[name].copy_(mean)

    def _followed(self, module: ImageFamily) -> dict[str, Tensor]:
        """What is averaged, live: fp32 masters where an engine keeps them, else the weights themselves."""
        masters = {name: piece for shards in self._shards.values() for name, piece in shards.masters().items()}
        return {name: masters.get(name, tensor.detach()) for name, tensor in live_state(module).items()}

    def _slices(self, shards: Shards) -> dict[str, Tensor]:
        return {name: self.average[name] for name in shards.parameters}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        images = len(batch["image"]) * trainer.world_size
        half_life = self.half_life_kimg * 1000
        if self.ramp_up > 0:
            half_life = min(half_life, pl_module.images_seen * self.ramp_up)
        beta = 0.5 ** (images / max(half_life, 1e-8))
        state = self._followed(pl_module)
        means = [name for name in state if follows_mean(name, state[name])]
        torch._foreach_lerp_([self.average[n] for n in means], [in_fp32(state[n]) for n in means], 1 - beta)
        for name in state.keys() - set(means):
            self.average[name].copy_(state[name])

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._validation.enter_context(self.in_place(pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._validation.close()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    @contextlib.contextmanager
    @torch.no_grad()
    def in_place(self, module: ImageFamily) -> Iterator[None]:
        """Inside, the module's generating networks hold the average; re-entrant."""
        if self._in_place or not self.average:
            with module.whole_weights():
                yield
            return
        sharded = {name for shards in self._shards.values() for name in shards.parameters}
        live = {name: tensor for name, tensor in live_state(module).items() if name not in sharded}
        kept = {name: tensor.clone() for name, tensor in live.items()}
        self._put(live, self.average, self._slices)
        self._in_place = True
        try:
            with module.whole_weights():
                yield
        finally:
            self._put(live, kept, Shards.masters)
            self._in_place = False

    @torch.no_grad()
    def _put(
        self, live: dict[str, Tensor], values: dict[str, Tensor], slices: Callable[[Shards], dict[str, Tensor]]
    ) -> None:
        # Values, not tensors: optimizers and engines hold on to the tensors themselves.
        for name, tensor in live.items():
            tensor.copy_(values[name])
        for shards in self._shards.values():
            shards.show(slices(shards))


def live_state(module: ImageFamily) -> dict[str, Tensor]:
    """Parameters and buffers of the generating networks, by their names in the module; the live tensors."""
    return {
        f"{network}.{name}": tensor
        for network in module.generating_networks()
        for name, tensor in getattr(module, network).state_dict(keep_vars=True).items()
    }


def in_fp32(tensor: Tensor) -> Tensor:
    """Floating-point numbers in fp32: the small steps of an average would vanish in bf16."""
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def follows_mean(name: str, tensor: Tensor) -> bool:
    """Counters and spectral norm's unit vectors are copied; an average of them would mean nothing."""
    return tensor.is_floating_point() and name.rpartition(".")[2] not in ("_u", "_v")


@contextlib.contextmanager
def averaged(trainer: L.Trainer, module: ImageFamily) -> Iterator[None]:
    """Inside, ``module`` is in eval mode, without gradients, and holds its EMA weights where the run keeps them."""
    ema = find(trainer, EMA)
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), ema.in_place(module) if ema else module.whole_weights():
            yield
    finally:
        module.train(training)
