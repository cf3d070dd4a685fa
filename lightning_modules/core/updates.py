"""Networks with an optimizer each, and their updates: the same for every strategy, precision and number of ranks.

``ImageFamily`` builds on this; a family calls ``update``, and never an optimizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from lightning_modules.core.abilities import Batch
from lightning_modules.core.draws import NoiseAhead
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.loss_means import LossMeans
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.core.saved import parameter_names
from lightning_modules.core.stability import (
    LossScalePerNetwork,
    Skips,
    finite_or_nan,
    mark_nonfinite,
    skip_if,
    spread_nonfinite,
)
from lightning_modules.core.step import Step

#: What a loss function returns: ``loss`` is minimised, all other entries are only logged.
Losses = Mapping[str, Tensor]


class NetworkUpdates(Step):
    """Base with the trained networks, their optimizers, and one update of one or several of them.

    Args:
        micro_batches: in how many parts a rank's batch goes through the networks (gradient accumulation).
        gradient_clip_norm: each network's gradient is scaled down to this L2 norm; None: never.
        channels_last: memory format of the networks and images.
        compile: ``torch.compile`` the networks that allow it (all but those that ``requires_double_backward`` names).
    """

    def __init__(
        self, *, micro_batches: int, gradient_clip_norm: float | None, channels_last: bool, compile: bool
    ) -> None:
        super().__init__()
        # Lightning's own loop knows one optimizer a module; several networks need their own order of updates.
        self.automatic_optimization = False
        self.micro_batches = micro_batches
        self.gradient_clip_norm = gradient_clip_norm
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compile_networks = compile
        self.images_seen = 0
        #: Length of the training in thousands of images, if known: some learning rate schedules end there.
        self.total_kimg: float | None = None
        #: Names of the trained networks, in the order of their optimizers.
        self.trained_networks: list[str] = []
        #: For each of them, its parameters' names in the order in which its optimizer counts them.
        self.parameter_names: dict[str, list[str]] = {}
        #: Training stops when a network's updates were skipped so many times in a row.
        self.nonfinite_limit = 20
        #: Skipped updates of each network.
        self.skips = Skips()
        #: Walking modules costs time: lists of each network's parameters, and of where its buffers are.
        self._parameters_of: dict[str, list[Parameter]] = {}
        self._buffers_of: dict[str, list[tuple[Module, str]]] = {}
        self.loss_means = LossMeans()

    # ---- networks and their optimizers ------------------------------------------------------------------------------

    def optimization(self) -> dict[str, OptimizerOptions]:
        """How each trained network is optimized, by the network's attribute name."""
        return {}

    def optimizers_by_network(self) -> dict[str, Optimizer]:
        """A fresh optimizer for each trained network, as ``optimization`` says.

        A family may return others; their learning rates stay as they are.
        """
        return {name: options.optimizer(getattr(self, name)) for name, options in self.optimization().items()}

    def learning_rates(self, images_seen: int) -> dict[str, float]:
        """Learning rates, of networks where they change, of the step that starts after ``images_seen`` images."""
        return {
            name: options.learning_rate(images_seen, total_kimg=self.total_kimg)
            for name, options in self.optimization().items()
            if options.changes
        }

    def requires_double_backward(self) -> tuple[str, ...]:
        """Networks through which gradients of gradients run (R1, WGAN-GP, path length).

        They are not compiled, and stay at stage 2 under ZeRO 3: neither can differentiate twice.
        """
        return ()

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = self.optimizers_by_network()
        self.trained_networks = list(optimizers)
        # Now, since under ZeRO an optimizer's groups will hold flat partitions.
        self.parameter_names = {name: parameter_names(getattr(self, name), o) for name, o in optimizers.items()}
        self._parameters_of, self._buffers_of = {}, {}
        # Those of another training may be of another seed.
        self._ahead = NoiseAhead()
        for name in self.trained_networks:
            getattr(self, name).to(memory_format=self.memory_format)
        if self.compile_networks:
            self._compile_networks()
        return list(optimizers.values())

    def _compile_networks(self) -> None:
        allowed = set(self.trained_networks) - set(self.requires_double_backward())
        # A double backward might run through a helper as well.
        helpers = [] if self.requires_double_backward() else [m for m in self.modules() if isinstance(m, Frozen)]
        for network in [*(getattr(self, name) for name in allowed), *helpers]:
            network.compile()
        if not allowed:
            rank_zero_warn("--model.compile true compiles nothing: a double backward runs through every network")

    def setup(self, stage: str) -> None:
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.precision == "16-mixed":
            self.trainer.strategy.precision_plugin = LossScalePerNetwork(self, plugin.device)

    # ---- an update: of one network, or of several by one loss --------------------------------------------------------

    def update(
        self,
        names: str | Sequence[str],
        losses: Callable[[Batch], Losses],
        batch: Batch,
        *,
        log_loss: bool = True,
    ) -> None:
        """Updates a network, or several together, once: forward, backward, unscale, clip, step, zero.

        If a loss or a gradient is not finite on any rank, all ranks skip the step of all of these networks, and count
        that. Gradients are clipped for each network by itself. Every other trained network is frozen meanwhile: no
        gradient is computed for it, on any strategy.
        (Lightning's ``toggle_optimizer`` cannot serve: under ZeRO an optimizer's groups hold flat partitions.)

        Args:
            names: the network's attribute name, a key of ``optimizers_by_network``; or several, all of which get
                their gradients from one backward: ``("generator_ab", "generator_ba")``. Their losses are logged
                under ``generator_ab+generator_ba/``.
            losses: maps a batch to its losses; called once for each micro-batch.
            batch: this rank's batch.
            log_loss: whether ``loss`` itself is logged; not where an update of another kind logs the networks' loss.

        Raises:
            ValueError: no network, the same twice, or one that has no optimizer.
        """
        self._now.updating = self._checked((names,) if isinstance(names, str) else tuple(names))
        self._now.stepping = self.updating[0]
        self._share_loss_scale()
        logged = "+".join(self.updating)
        parts = split_batch(batch, self.micro_batches)
        with self.freezing_others(*self.updating):
            for number, part in enumerate(parts):
                self._now.noise = self._noise_of(number, len(parts))
                values = losses(part)
                with contextlib.nullcontext() if number == len(parts) - 1 else self._no_reduction():
                    self.manual_backward(values["loss"], gradient=finite_or_nan(values["loss"], 1 / len(parts)))
                shown = {key: value for key, value in values.items() if log_loss or key != "loss"}
                self.loss_means.add({f"{logged}/{key}": value for key, value in shown.items()})
            with self._all_or_none_step():
                for name in self.updating:
                    self._step_and_zero(name)
        # Lightning's autocast spans the whole step and keeps its 16-bit copies of the weights: these are now old.
        torch.clear_autocast_cache()
        self._now.updates += 1

    def _checked(self, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in self.trained_networks]
        if not names or unknown or len(set(names)) < len(names):
            raise ValueError(
                f"update({', '.join(map(repr, names))}): name one or more of the networks that have an optimizer, each "
                f"once: {', '.join(self.trained_networks)}"
            )
        return names

    @contextlib.contextmanager
    def freezing_others(self, *names: str) -> Iterator[None]:
        """Context manager: parameters of all trained networks but these need no gradient."""
        frozen = [
            parameter
            for other in self.trained_networks
            if other not in names
            for parameter in self.parameters_of(other)
            if parameter.requires_grad
        ]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def parameters_of(self, name: str) -> list[Parameter]:
        """All parameters of the network ``name``."""
        if name not in self._parameters_of:
            self._parameters_of[name] = list(getattr(self, name).parameters())
        return self._parameters_of[name]

    def buffers_of(self, name: str) -> list[Tensor]:
        """All buffers of the network ``name``, which may have been replaced since the step before."""
        if name not in self._buffers_of:
            own = dict.fromkeys((module, key) for module in getattr(self, name).modules() for key in module._buffers)
            self._buffers_of[name] = list(own)
        found = (module._buffers[key] for module, key in self._buffers_of[name])
        return [buffer for buffer in found if buffer is not None]

    def _share_loss_scale(self) -> None:
        plugin = self.trainer.precision_plugin
        if len(self.updating) > 1 and isinstance(plugin, LossScalePerNetwork):
            plugin.share(self.updating)

    def _all_or_none_step(self) -> contextlib.AbstractContextManager[object]:
        """Context manager: either all of the networks that are updated together step, or none."""
        if len(self.updating) == 1:
            return contextlib.nullcontext()
        if hasattr(self.trainer.strategy, "skipped_alike"):
            # ZeRO's engines hold the gradients.
            return self._by_strategy("skipped_alike", self.updating)
        spread_nonfinite([self.parameters_of(name) for name in self.updating])
        return contextlib.nullcontext()

    def _step_and_zero(self, name: str) -> None:
        self._now.stepping = name
        optimizer = self.optimizer_of(name)
        self.set_learning_rate(name, optimizer)
        optimizer.step()
        # Not the optimizer's gradients: under ZeRO these are an engine's own buffers.
        for parameter in self.parameters_of(name):
            parameter.grad = None

    def optimizer_of(self, name: str) -> LightningOptimizer:
        """The optimizer of the network ``name``, as Lightning wraps it."""
        optimizers = self.optimizers()
        own = optimizers[self.trained_networks.index(name)] if isinstance(optimizers, list) else optimizers
        assert isinstance(own, LightningOptimizer)
        return own

    def set_learning_rate(self, name: str, optimizer: LightningOptimizer) -> None:
        """Gives the optimizer of the network ``name`` this step's learning rate and betas, where they change."""
        options = self.optimization().get(name)
        if options is not None and options.changes:
            rate: float | Tensor = options.learning_rate(self.images_seen, total_kimg=self.total_kimg)
            # A step that is captured reads it from memory.
            rate = self._now.rates.get(name, rate)
            # DeepSpeed's engines keep their flat partitions in the same groups.
            for group in optimizer.param_groups:
                group["lr"] = rate
                if options.final_beta2 is not None:
                    group["betas"] = options.betas(self.images_seen, total_kimg=self.total_kimg)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.gradient_clip_norm is not None:
            # Lightning has unscaled by now (16-mixed), but leaves that to a fused optimizer's step: too late to clip.
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        bad = self.skips.flag(self.stepping, self.device)
        mark_nonfinite(bad, parameters, clip_norm=self.gradient_clip_norm)
        self._now.flags.append(bad)
        skip_if(bad, optimizer)

    def note_skipped(self, skipped: bool) -> None:
        """Called by a strategy that steps by itself: whether the update of the network ``stepping`` was skipped."""
        self.skips.note(self.stepping, skipped)
        if skipped:
            self._now.flags.append(torch.ones((), dtype=torch.float32, device=self.device))

    # ---- what the strategy does --------------------------------------------------------------------------------------

    def edited(self, name: str) -> contextlib.AbstractContextManager[object]:
        """Context manager: gathers a network's full weights for in-place edits; all ranks must edit alike."""
        return self._by_strategy("edited", name)

    def whole_weights(self) -> contextlib.AbstractContextManager[object]:
        """Context manager: every rank holds the full weights of all networks, and may run them independently."""
        return self._by_strategy("whole")

    def _no_reduction(self) -> contextlib.AbstractContextManager[object]:
        """Context manager: gradients add up on their rank; the ranks average after the last micro-batch."""
        return self._by_strategy("block_backward_sync")

    def _by_strategy(self, context: str, *arguments: object) -> contextlib.AbstractContextManager[object]:
        # Lightning's strategy for a single device, and a module without a Trainer, have no such contexts and need none.
        enter = getattr(getattr(self._trainer, "strategy", None), context, None)
        return enter(*arguments) if enter else contextlib.nullcontext()

    def pop_mean_losses(self) -> dict[str, float]:
        """Means of all losses since the last call, over all ranks; empties the sums."""
        return self.loss_means.take(lambda means: self.trainer.strategy.reduce(means, reduce_op="mean"))


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Cuts tensors and lists of a batch along their first dimension into ``parts`` micro-batches of one size.

    Raises:
        ValueError: the images cannot be cut into equal parts.
    """
    if parts == 1:
        return [batch]
    count = len(batch["image"])
    if count % parts:
        raise ValueError(f"a rank's batch of {count} images cannot be cut into {parts} equal micro-batches")
    size = count // parts

    def cut(value: object, start: int) -> object:
        if isinstance(value, Tensor | list) and len(value) == count:
            return value[start : start + size]
        return value

    return [{key: cut(value, start) for key, value in batch.items()} for start in range(0, count, size)]
