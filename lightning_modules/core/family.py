"""The one base class of all families: the image clock, updates of networks, and what every family answers.

A family wires networks to losses and nothing else::

    class MyGAN(ImageFamily):
        def optimization(self):
            return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

        def step(self, batch):
            self.update("discriminator", self.discriminator_loss, batch)
            self.update("generator", self.generator_loss, batch)

Networks that step together out of one loss are named together: ``self.update(("encoder", "decoder"), ...)``.
Whatever the strategy, the precision or the number of ranks, the family does not change.
"""

from __future__ import annotations

import contextlib
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module
from torch.optim import Optimizer

from gesso.common.randomness import mix_seed
from lightning_modules.core.abilities import Abilities, Batch, Preview
from lightning_modules.core.averages import MAIN, Average, Averages, SlicedNetwork
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.noise import NoiseRows, seed_everything
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.options import (
    Renamed,
    constructor_arguments,
    constructor_options,
    plain,
    told,
    with_new_names,
)
from lightning_modules.core.saved import (
    AVERAGES,
    check_checkpoint,
    named_state,
    numbered_state,
    parameter_names,
    saved_averages,
)
from lightning_modules.core.stability import (
    BufferGuard,
    LossScalePerNetwork,
    Skips,
    is_nonfinite,
    poisoned,
    skip_if,
    spread_nonfinite,
)

#: What a loss function returns: ``loss`` is what is minimised, all other entries are only logged.
Losses = Mapping[str, Tensor]


class ImageFamily(Abilities):
    """Base of every model family.

    Args:
        micro_batches: in how many parts a rank's batch goes through the networks (gradient accumulation).
        gradient_clip_norm: each network's gradient is scaled down to this L2 norm; None: never.
        channels_last: memory format of the networks and images; faster for plain convolutional networks.
        compile: ``torch.compile`` the networks that allow it (all but those that ``requires_double_backward`` names).
    """

    #: Options that had other names before: see ``core.options``.
    renamed_options: ClassVar[Renamed] = {}

    def __init__(
        self,
        *,
        micro_batches: int = 1,
        gradient_clip_norm: float | None = None,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if micro_batches < 1:
            raise ValueError(f"micro_batches is {micro_batches}; it must be 1 or more")
        # Lightning's own loop knows one optimizer a module; several networks need their own order of updates.
        self.automatic_optimization = False
        self.micro_batches = micro_batches
        self.gradient_clip_norm = gradient_clip_norm
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compile_networks = compile
        self.images_seen = 0
        self.steps_done = 0
        #: Length of the training in thousands of images, where something knows it: some schedules end there.
        self.total_kimg: float | None = None
        #: The networks that are being updated, by one loss.
        self.updating: tuple[str, ...] = ()
        #: The one of them whose optimizer steps; until then the first.
        self.stepping = ""
        #: How many updates in a row may be skipped, since losses or gradients are not finite, before training stops.
        self.nonfinite_limit = 20
        self.skips = Skips()
        #: 1 if the last update was skipped, 0 if not; a strategy that steps by itself sets it.
        self.skipped = torch.zeros(())
        self._bad_step = torch.zeros(())
        #: Moving averages of weights, by name.
        self.averages = Averages(self)
        self._loss_sums: dict[str, tuple[Tensor, int]] = {}
        self._step_seed = 0
        self._updates = 0
        self._noise = NoiseRows(0, 0, 0, 1)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """A family out of plain nested data: a checkpoint's ``hyper_parameters``, or a recipe's ``init_args``.

        Options may have older names; one line on stderr says so.

        Raises:
            ValueError: an option that there is not, or a value out of its range.
        """
        current, old = with_new_names(constructor_options(options), cls.renamed_options)
        if old:
            print(told(old, cls.renamed_options), file=sys.stderr, flush=True)
        return cls(**constructor_arguments(cls, current))

    # ---- what a family answers --------------------------------------------------------------------------------------

    def optimization(self) -> dict[str, OptimizerOptions]:
        """How each trained network is optimized, by the network's attribute name."""
        return {}

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        """A fresh optimizer for each trained network, as ``optimization`` says.

        A family may bring others; their learning rates stay as they are.
        """
        return {name: options.optimizer(getattr(self, name)) for name, options in self.optimization().items()}

    def learning_rates(self) -> dict[str, float]:
        """The present learning rate of each network whose learning rate changes over the training."""
        return {
            name: options.learning_rate(self.images_seen, total_kimg=self.total_kimg)
            for name, options in self.optimization().items()
            if options.changes
        }

    @abstractmethod
    def step(self, batch: Batch) -> None:
        """One training step: calls ``update`` for the networks whose turn it is."""

    @abstractmethod
    def generating_networks(self) -> tuple[str, ...]:
        """Names of the networks that make the picture: those whose average (EMA) is kept."""

    @abstractmethod
    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Named grids of how training stands; ``held_out`` has a few images never trained on (``image``, ...)."""

    def own_averages(self) -> dict[str, Average]:
        """Moving averages that the training itself reads with ``averaged``, by name: ``{"teacher": Average(...)}``."""
        return {}

    def published_weights(self) -> tuple[str, ...]:
        """Names of the published weights that the family needs (``gesso fetch`` has them)."""
        return ()

    def take_weights(self, name: str, file: Path) -> None:
        """Hands over one of the ``published_weights``, before anything is trained or made."""
        raise NotImplementedError(name)

    def held_out_losses(self, batch: Batch) -> Losses:
        """Losses worth knowing on images never trained on; their means are logged under ``val/``."""
        return {}

    def requires_double_backward(self) -> tuple[str, ...]:
        """Networks through which gradients of gradients run (R1, WGAN-GP, path length).

        torch.compile and ZeRO 3 cannot differentiate twice: these networks are spared both.
        """
        return ()

    def check_data(self, *, channels: int, resolution: int | None, num_classes: int, unlabelled: int = 0) -> None:
        """Raises a ValueError when images of this kind (``unlabelled``: how many lack a label) don't fit."""
        spec = self.batch_spec()
        for name, has, wants in (("channels", channels, spec.channels), ("resolution", resolution, spec.resolution)):
            if wants is not None and has is not None and has != wants:
                raise ValueError(
                    f"the data has {name} {has}, {type(self).__name__} was built for {wants}: "
                    f"set --model.{name} {has}, or build shards that fit"
                )
        wants = spec.num_classes
        if wants and wants != num_classes:
            raise ValueError(
                f"the data has {num_classes or 'no'} classes, {type(self).__name__} was built for {wants}: "
                f"set --model.num_classes {num_classes}"
            )
        if wants and unlabelled:
            raise ValueError(
                f"{unlabelled:,} training images have no label, which a conditional {type(self).__name__} needs: "
                "put them into class folders and build again, or set --model.num_classes 0"
            )

    # ---- an update: of one network, or of several by one loss --------------------------------------------------------

    def update(self, names: str | Sequence[str], losses: Callable[[Batch], Losses], batch: Batch) -> None:
        """Updates a network, or several together, once: forward, backward, unscale, clip, step, zero.

        If a loss or a gradient is not finite on any rank, all ranks leave all of these networks as they are, and count
        that. Gradients are clipped for each network by itself. Every other trained network is frozen meanwhile: no
        gradient is computed for it, on any strategy.
        (Lightning's ``toggle_optimizer`` cannot serve: under ZeRO an optimizer's groups hold flat partitions.)

        Args:
            names: the network's attribute name, a key of ``optimizers_by_network``; or several, all of which get
                their gradients from one backward: ``("generator_ab", "generator_ba")``. Their losses are logged
                under ``generator_ab+generator_ba/``.
            losses: maps a batch to its losses; called once for each micro-batch.
            batch: this rank's batch.

        Raises:
            ValueError: no network, the same twice, or one that has no optimizer.
        """
        self.updating = self._checked((names,) if isinstance(names, str) else tuple(names))
        self.stepping = self.updating[0]
        self._share_loss_scale()
        logged = "+".join(self.updating)
        parts = split_batch(batch, self.micro_batches)
        with self._only(*self.updating):
            for number, part in enumerate(parts):
                self._noise = self._noise_of(number, len(parts))
                values = losses(part)
                with contextlib.nullcontext() if number == len(parts) - 1 else self._no_reduction():
                    self.manual_backward(poisoned(values["loss"]) / len(parts))
                self._sum_up({f"{logged}/{key}": value for key, value in values.items()})
            with self._skipped_alike():
                for name in self.updating:
                    self._step_and_zero(name)
        # Lightning's autocast spans the whole step and keeps its 16-bit copies of the weights: these are now old.
        torch.clear_autocast_cache()
        self._updates += 1

    def _checked(self, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in self._network_names]
        if not names or unknown or len(set(names)) < len(names):
            raise ValueError(
                f"update({', '.join(map(repr, names))}): name one or more of the networks that have an optimizer, each "
                f"once: {', '.join(self._network_names)}"
            )
        return names

    def _step_and_zero(self, name: str) -> None:
        self.stepping = name
        optimizer = self._optimizer(name)
        self._set_learning_rate(name, optimizer)
        optimizer.step()
        # Not the optimizer's gradients: under ZeRO these are an engine's own buffers.
        getattr(self, name).zero_grad()
        self.skips.note(name, self.skipped)
        self._bad_step = torch.maximum(self._bad_step.to(self.skipped), self.skipped)

    def _skipped_alike(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, either all of the networks that are updated together step, or none."""
        if len(self.updating) == 1:
            return contextlib.nullcontext()
        if hasattr(self.trainer.strategy, "skipped_alike"):
            # ZeRO's engines hold the gradients.
            return self._by_strategy("skipped_alike", self.updating)
        spread_nonfinite([list(getattr(self, name).parameters()) for name in self.updating])
        return contextlib.nullcontext()

    def _share_loss_scale(self) -> None:
        plugin = self.trainer.precision_plugin
        if len(self.updating) > 1 and isinstance(plugin, LossScalePerNetwork):
            plugin.share(self.updating)

    def _optimizer(self, name: str) -> Any:
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        return optimizers[self._network_names.index(name)]

    def _set_learning_rate(self, name: str, optimizer: Any) -> None:
        options = self.optimization().get(name)
        if options is not None and options.changes:
            rate = options.learning_rate(self.images_seen, total_kimg=self.total_kimg)
            # DeepSpeed's engines keep their flat partitions in the same groups.
            for group in optimizer.param_groups:
                group["lr"] = rate

    @contextlib.contextmanager
    def _only(self, *names: str) -> Iterator[None]:
        frozen = [
            parameter
            for other in self._network_names
            if other not in names
            for parameter in getattr(self, other).parameters()
            if parameter.requires_grad
        ]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def edited(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """Inside, the weights of the network ``name`` are whole and may be changed by hand, alike on every rank."""
        return self._by_strategy("edited", name)

    def whole_weights(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, this rank holds all weights of every network and may run them by itself."""
        return self._by_strategy("whole")

    @contextlib.contextmanager
    def evaluating(self, average: str = MAIN) -> Iterator[None]:
        """Context manager: eval mode, no gradients, all weights whole, and the average in place where it is kept."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), self.averages.in_place(average), self.whole_weights():
                yield
        finally:
            self.train(training)

    def averaged(self, average: str, network: str, *, training: bool = False) -> Callable[..., Any]:
        """A network with the weights of one of the ``averages``, to be called in a loss: no gradient runs through it.

        The network itself and the average stay as they are. Under ZeRO the average is gathered once a step: all ranks
        must call alike.

        Args:
            average: its name, such as one of ``own_averages``.
            network: the network's attribute name.
            training: run the network in training mode (dropout, batch statistics) instead of eval mode.

        Raises:
            ValueError: there is no such average of this network.
        """
        tensors = self.averages.read(average, network)
        module: Module = getattr(self, network)
        if training:
            # Batch norm in training mode writes into its buffers.
            tensors = {
                **tensors,
                **{name: tensors[name].clone() for name, _ in module.named_buffers() if name in tensors},
            }

        def run(*inputs: Any, **options: Any) -> Any:
            with torch.no_grad(), self._by_strategy("unhooked", network), in_mode(module, training):
                return functional_call(module, tensors, inputs, options)

        return run

    def _no_reduction(self) -> contextlib.AbstractContextManager[Any]:
        """Gradients of all but the last micro-batch stay on their rank."""
        return self._by_strategy("block_backward_sync")

    def _by_strategy(self, context: str, *arguments: Any) -> contextlib.AbstractContextManager[Any]:
        # Lightning's strategy for a single device, and a module without a Trainer, have no such contexts and need none.
        enter = getattr(getattr(self._trainer, "strategy", None), context, None)
        return enter(*arguments) if enter else contextlib.nullcontext()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.gradient_clip_norm is not None:
            # Lightning has unscaled by now (16-mixed), but leaves that to a fused optimizer's step: too late to clip.
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.skipped = is_nonfinite(parameters, clip_norm=self.gradient_clip_norm)
        skip_if(self.skipped, optimizer)

    # ---- the training step: clock and randomness --------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        # All randomness of a step is a pure function of (seed, images seen, rank): a resumed run needs no RNG state,
        # which could not be carried over to another number of ranks.
        self._step_seed = mix_seed(int(os.environ.get("PL_GLOBAL_SEED", "0")), self.images_seen)
        seed_everything(mix_seed(self._step_seed, self.global_rank))
        self._updates = 0
        self._bad_step = torch.zeros((), device=self.device)
        guard = BufferGuard(buffer for name in self._network_names for buffer in getattr(self, name).buffers())
        self.step(batch)
        guard.undo_if(self._bad_step)
        images = len(batch["image"]) * self.trainer.world_size
        self.images_seen += images
        self.steps_done += 1
        # Every rank averages, and evaluates, the same model.
        share: Callable[[], None] | None = getattr(self.trainer.strategy, "share_buffers", None)
        if share is not None:
            share()
        self.averages.follow(images, self.images_seen)
        if self.steps_done % self.nonfinite_limit == 0:
            self.skips.check(self.nonfinite_limit, step=self.steps_done, images=self.images_seen)

    def randn(self, count: int, *shape: int) -> Tensor:
        """Standard normal noise [count, *shape] for this rank's part of the global batch.

        The noise of a global batch is the same for any number of ranks and micro-batches: it is a function of the seed,
        the images seen, the update, the draw and the place in the global batch. A rank computes its own rows alone.
        """
        return self._noise.normal(count, shape, self.device)

    def rand(self, count: int, *shape: int) -> Tensor:
        """Like ``randn``, uniform in [0, 1)."""
        return self._noise.uniform(count, shape, self.device)

    def randint(self, count: int, below: int) -> list[int]:
        """Integers in [0, below), the same on every rank and in every micro-batch, known without asking the device."""
        return [mix_seed(self._step_seed, self._updates, number) % below for number in range(count)]

    def _noise_of(self, part: int, parts: int) -> NoiseRows:
        rank, ranks = self.global_rank, self.trainer.world_size
        return NoiseRows(self._step_seed, self._updates, part, parts, rank=rank, ranks=ranks)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # Averaged by Lightning, but logged against images by the run's clock: Lightning's loggers would count batches.
        for name, value in self.held_out_losses(batch).items():
            self.log(f"val/{name}", value, logger=False, on_epoch=True, sync_dist=True, batch_size=len(batch["image"]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    # ---- means of the losses -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _sum_up(self, values: Losses) -> None:
        # Sums stay on the device: reading one would wait for the GPU in every step.
        for name, value in values.items():
            total, count = self._loss_sums.get(name, (0.0, 0))
            self._loss_sums[name] = (total + value.detach().float(), count + 1)

    def take_averages(self) -> dict[str, float]:
        """Means of all losses since the last call, over all ranks; empties the sums."""
        averages = {name: total / count for name, (total, count) in sorted(self._loss_sums.items())}
        self._loss_sums = {}
        if not averages:
            return {}
        stacked = self.trainer.strategy.reduce(torch.stack(list(averages.values())), reduce_op="mean")
        return dict(zip(averages, stacked.tolist(), strict=True))

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.precision == "16-mixed":
            self.trainer.strategy.precision_plugin = LossScalePerNetwork(self, plugin.device)

    def on_fit_start(self) -> None:
        for name, average in self.own_averages().items():
            self.averages.keep(name, average.profile, average.networks)
        sliced: dict[str, SlicedNetwork] = getattr(self.trainer.strategy, "shards", {})
        self.averages.start(sliced)

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = self.optimizers_by_network()
        self._network_names = list(optimizers)
        # As they are counted now: under ZeRO an optimizer's groups will hold flat partitions.
        self._parameter_names = {name: parameter_names(getattr(self, name), o) for name, o in optimizers.items()}
        for name in self._network_names:
            getattr(self, name).to(memory_format=self.memory_format)
        if self.compile_networks:
            allowed = set(self._network_names) - set(self.requires_double_backward())
            # A double backward might run through a helper as well.
            helpers = [] if self.requires_double_backward() else [m for m in self.modules() if isinstance(m, Frozen)]
            for network in [*(getattr(self, name) for name in allowed), *helpers]:
                network.compile()
            if not allowed:
                rank_zero_warn("--model.compile true compiles nothing: a double backward runs through every network")
        return list(optimizers.values())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gesso"] = {
            "family": type(self).__name__,
            "images_seen": self.images_seen,
            "steps_done": self.steps_done,
            "skipped_updates": self.skips.totals(),
        }
        checkpoint[AVERAGES] = self.averages.state_dict()
        if "hyper_parameters" in checkpoint:
            checkpoint["hyper_parameters"] = plain(checkpoint["hyper_parameters"])
        if states := checkpoint.get("optimizer_states"):
            checkpoint["optimizer_states"] = {
                name: named_state(state, self._parameter_names[name])
                for name, state in zip(self._network_names, states, strict=True)
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_checkpoint(self, checkpoint)
        optimizers = self.optimizers_by_network()
        if saved := checkpoint.get("optimizer_states"):
            # Lightning would restore the learning rates as well: what the config says now is what holds.
            checkpoint["optimizer_states"] = [
                numbered_state(
                    saved[name], optimizer, parameter_names(getattr(self, name), optimizer), self.memory_format
                )
                for name, optimizer in optimizers.items()
            ]
        self.images_seen = checkpoint["gesso"]["images_seen"]
        self.steps_done = checkpoint["gesso"]["steps_done"]
        self.skips.load(checkpoint["gesso"]["skipped_updates"])
        self.averages.load_state_dict(saved_averages(checkpoint))


@contextlib.contextmanager
def in_mode(network: Module, training: bool) -> Iterator[None]:
    """Context manager: training or eval mode; every submodule has its own mode back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Cuts tensors and lists of a batch along their first dimension into ``parts`` micro-batches of one size."""
    if parts == 1:
        return [batch]
    count = len(batch["image"])
    if count % parts:
        raise ValueError(f"a rank's batch of {count} images cannot be cut into {parts} equal micro-batches")
    size = count // parts

    def cut(value: Any, start: int) -> Any:
        sliceable = isinstance(value, (Tensor, list)) and len(value) == count
        return value[start : start + size] if sliceable else value

    return [{key: cut(value, start) for key, value in batch.items()} for start in range(0, count, size)]
