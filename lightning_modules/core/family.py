"""The base class of all families: what every family answers, the count of images seen, checkpoints.

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
import sys
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.func import functional_call
from torch.nn import Module

from gesso.common.randomness import mix_seed
from gesso.common.ranges import Count, Positive, check_options
from lightning_modules.core.abilities import Batch, Preview
from lightning_modules.core.averages import MAIN, Average, Averages, SlicedNetwork
from lightning_modules.core.draws import NoiseRows, Steps
from lightning_modules.core.graphs import StepGraphs, obstacle
from lightning_modules.core.noise import seed_everything
from lightning_modules.core.options import (
    Renamed,
    constructor_arguments,
    constructor_options,
    plain,
    renaming_notice,
    with_new_names,
)
from lightning_modules.core.saved import (
    AVERAGES,
    Checkpoint,
    check_checkpoint,
    named_state,
    numbered_state,
    parameter_names,
    saved_averages,
)
from lightning_modules.core.stability import BufferGuard
from lightning_modules.core.step import Now, step_seed
from lightning_modules.core.updates import Losses, NetworkUpdates

#: Calls a network, and returns what that returns.
NetworkCall = Callable[..., Any]  # type: ignore[explicit-any] # as torch's Module.__call__


class ImageFamily(NetworkUpdates):
    """Base of every model family.

    Args:
        micro_batches: in how many parts a rank's batch goes through the networks (gradient accumulation).
        gradient_clip_norm: each network's gradient is scaled down to this L2 norm; None: never.
        channels_last: memory format of the networks and images; faster for plain convolutional networks.
        compile: ``torch.compile`` the networks that allow it (all but those that ``requires_double_backward`` names).
    """

    #: Options that had other names before: see ``core.options``.
    renamed_options: ClassVar[Renamed] = {}
    #: Options, by dotted name, that decide what trained weights mean without showing in their shapes: training does not
    #: go on with other values. ``("network",)`` names all of the network's. The networks that judge belong here, too.
    fixed_options: ClassVar[tuple[str, ...]] = ()
    #: Those of ``runs`` without which a new training does not begin.
    needed_runs: ClassVar[tuple[str, ...]] = ()
    #: Options, by dotted name, that say how wide networks are which ``gesso prune`` makes narrower; empty: none.
    widths: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        micro_batches: Count = 1,
        gradient_clip_norm: Positive | None = None,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        check_options(ImageFamily, {"micro_batches": micro_batches, "gradient_clip_norm": gradient_clip_norm})
        super().__init__(
            micro_batches=micro_batches,
            gradient_clip_norm=gradient_clip_norm,
            channels_last=channels_last,
            compile=compile,
        )
        self.steps_done = 0
        #: Whether whole steps are replayed as CUDA graphs (``trainer.cuda_graphs``), and what does that.
        self.cuda_graphs = False
        self.graphs: StepGraphs | None = None
        #: Moving averages of weights, by name.
        self.averages = Averages(self)
        self._guard = BufferGuard()

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Builds a family from plain nested data: a checkpoint's ``hyper_parameters``, or a recipe's ``init_args``.

        Older names of options are accepted, with one line on stderr.

        Raises:
            ValueError: an unknown option, or a value out of its range.
        """
        current, old = with_new_names(constructor_options(options), cls.renamed_options)
        if old:
            print(renaming_notice(old, cls.renamed_options), file=sys.stderr, flush=True)
        return cls(**constructor_arguments(cls, current))  # type: ignore[arg-type] # each family has its own

    # ---- what a family answers --------------------------------------------------------------------------------------

    @abstractmethod
    def step(self, batch: Batch) -> None:
        """One training step: calls ``update`` for each network whose turn it is."""

    def step_kind(self) -> Hashable | None:
        """What the host decides about the step to come, for CUDA graphs: see ``core.graphs``.

        Two steps of one kind make the same operator calls with the same numbers; batch, noise of ``randn`` and ``rand``
        and learning rates may differ. So the kind says which updates there are, and has each number that changes with
        the images seen. None: the host decides something else anew in each step, such as by ``randint``.
        """
        return None

    @abstractmethod
    def generating_networks(self) -> tuple[str, ...]:
        """Names of the networks that make the images: those of which an average (EMA) is kept."""

    @abstractmethod
    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Named grids that show the state of the training; ``held_out`` has a few images never trained on."""

    def own_averages(self) -> dict[str, Average]:
        """Moving averages that the training itself reads with ``averaged``, by name: ``{"teacher": Average(...)}``."""
        return {}

    def published_weights(self) -> tuple[str, ...]:
        """Names of the published weights that the family needs (``gesso fetch`` downloads them)."""
        return ()

    def take_weights(self, name: str, file: Path) -> None:
        """Loads one of the ``published_weights``; called before training or generation."""
        raise NotImplementedError(name)

    def autoencoder_run(self) -> str:
        """The run whose decoder makes pictures of what the family makes; empty: it makes pictures."""
        return ""

    def take_autoencoder(self, module: ImageFamily) -> None:
        """Receives the ``autoencoder_run``, before training or generation.

        Raises:
            ValueError: it is no autoencoder, or not the one that the latents were encoded with.
        """
        raise NotImplementedError

    def received_autoencoder(self) -> ImageFamily | None:
        """The autoencoder that was received; None: it makes pictures."""
        return None

    def take_latents(self, **facts: object) -> None:
        """Receives what the shard set says of its latents, before training: see ``kinds.latents.LatentOptions``."""
        raise NotImplementedError

    def take_set_size(self, images: int) -> None:
        """Receives how many images there are to train on, before training."""

    def runs(self) -> dict[str, str]:
        """Other runs whose weights a new training begins with, by option: run folders or checkpoints; empty: none."""
        return {}

    def take_run(self, option: str, module: ImageFamily) -> None:
        """Receives one of the ``runs``, with its averaged weights.

        Raises:
            ValueError: it does not fit.
        """
        raise NotImplementedError(option)

    def held_out_losses(self, batch: Batch) -> Losses:
        """Losses on images never trained on; their means are logged under ``val/``."""
        return {}

    def check_data(self, *, channels: int, resolution: int | None, num_classes: int, unlabelled: int = 0) -> None:
        """Checks that the training images fit the family.

        Args:
            channels: of the images, 1 or 3.
            resolution: their height and width in pixels; None: they differ.
            num_classes: classes of the data set.
            unlabelled: number of images without a label.

        Raises:
            ValueError: they do not fit; names the option to change.
        """
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

    def averaged(self, average: str, network: str, *, training: bool = False) -> NetworkCall:
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

        def run(*inputs: object, **options: object) -> object:
            with torch.no_grad(), self._by_strategy("unhooked", network), in_mode(module, training):
                return functional_call(module, tensors, inputs, options)

        return run

    # ---- the training step ------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        images = len(batch["image"]) * self.trainer.world_size
        # All randomness of a step is a pure function of (seed, images seen, rank): a resumed run needs no RNG state,
        # which could not be carried over to another number of ranks.
        self._now = Now(Steps(step_seed, self.images_seen, images), stepping=self._now.stepping)
        seed_everything(mix_seed(step_seed(self.images_seen), self.global_rank), self.device)
        if self.graphs is None:
            self.guarded_step(batch)
        else:
            self.graphs.step(batch)
        self.images_seen += images
        self.steps_done += 1
        # Every rank averages, and evaluates, the same model.
        share: Callable[[], None] | None = getattr(self.trainer.strategy, "share_buffers", None)
        if share is not None:
            share()
        self.averages.follow(images, self.images_seen)
        if self.steps_done % self.nonfinite_limit == 0:
            self.skips.check(self.nonfinite_limit, step=self.steps_done, images=self.images_seen)

    def guarded_step(self, batch: Batch) -> None:
        """The family's step; what a bad update did to batch norm's buffers is undone."""
        self._guard.remember([buffer for name in self.trained_networks for buffer in self.buffers_of(name)])
        self.step(batch)
        self._guard.undo_if(self._now.flags)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # What held-out losses draw is the same every time, wherever training is, for any number of ranks.
        rank, ranks = self.global_rank, self.trainer.world_size
        self._now.noise = NoiseRows(mix_seed(batch_idx), 0, 0, 1, rank=rank, ranks=ranks)
        # Averaged by Lightning, but logged against images by the run's clock: Lightning's loggers would count batches.
        for name, value in self.held_out_losses(batch).items():
            self.log(f"val/{name}", value, logger=False, on_epoch=True, sync_dist=True, batch_size=len(batch["image"]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        for name, average in self.own_averages().items():
            self.averages.keep(name, average.profile, average.networks)
        sliced: dict[str, SlicedNetwork] = getattr(self.trainer.strategy, "shards", {})
        self.averages.start(sliced)
        self.graphs = None
        if self.cuda_graphs and (why := obstacle(self)) is not None:
            rank_zero_warn(f"trainer.cuda_graphs: training goes on without graphs: {why}")
        elif self.cuda_graphs:
            self.graphs = StepGraphs(self)

    def on_save_checkpoint(self, checkpoint: Checkpoint) -> None:
        checkpoint["gesso"] = {
            "family": type(self).__name__,
            "images_seen": self.images_seen,
            "steps_done": self.steps_done,
            "skipped_updates": self.skips.totals(),
            "losses": self.loss_means.saved(lambda sums: self.trainer.strategy.all_gather(sums)),
            "profiles": self.averages.profiles(),
        }
        checkpoint[AVERAGES] = self.averages.state_dict()
        if "hyper_parameters" in checkpoint:
            checkpoint["hyper_parameters"] = plain(checkpoint["hyper_parameters"])
        if states := checkpoint.get("optimizer_states"):
            checkpoint["optimizer_states"] = {
                name: named_state(state, self.parameter_names[name])
                for name, state in zip(self.trained_networks, states, strict=True)
            }

    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None:
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
        # Checkpoints of version 0.1 have none.
        ranks = self._trainer.world_size if self._trainer else 1
        self.loss_means.load(checkpoint["gesso"].get("losses", {}), rank=self.global_rank, ranks=ranks)
        self.averages.load_state_dict(saved_averages(checkpoint))


@contextlib.contextmanager
def in_mode(network: Module, training: bool) -> Iterator[None]:
    """Context manager: training or eval mode; restores every submodule's own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
