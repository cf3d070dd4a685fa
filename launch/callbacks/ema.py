"""The recipe's section ``ema``: moving averages of the generating networks."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import lightning as L

from gesso.common.ranges import NonNegative, Positive
from gesso.common.schedules import Schedule
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import Every, clock_of
from launch.callbacks.lookup import family_of, find, run_folder
from launch.checkpoints import snapshots
from lightning_modules.core.averages import MAIN
from lightning_modules.core.family import Batch
from lightning_modules.core.profiles import HalfLife, Power, Profile
from lightning_modules.core.saved import Checkpoint, saved_averages


class EMA(L.Callback):
    """Keeps moving averages of the generating networks, with lengths in images.

    Previews, evaluation, loading and exports use the first one: the first half-life, or, with an empty list of these,
    the first width.

    Args:
        half_life_kimg: half-life in thousands of images, as in StyleGAN2 and EDM (Karras et al. 2020, 2022); a list
            keeps several averages; a schedule with ``start``, ``end`` and ``over_kimg`` grows (R3GAN).
        ramp_up: upper bound of the half-life as a share of the images seen, so that early averages forget the
            initialisation; 0: no bound.
        widths: relative widths of additional power-function averages as in EDM2 (Karras et al. 2024); with
            ``[0.05, 0.10]``, ``gesso average`` makes one of a width between them afterwards. A resumed
            run cannot add any.
        snapshot_every_kimg: interval of saving the power-function averages to the run's ``averages/``; null: that of
            the checkpoints.
    """

    def __init__(
        self,
        half_life_kimg: Positive | list[Positive] | Schedule = 10.0,
        ramp_up: NonNegative = 0.05,
        widths: Sequence[Positive] = (),
        snapshot_every_kimg: Positive | None = None,
    ) -> None:
        half_lives: Sequence[float | Schedule]
        half_lives = [half_life_kimg] if isinstance(half_life_kimg, int | float | Schedule) else half_life_kimg
        self.powers = [Power(width) for width in widths]
        self.profiles: list[Profile] = [*(HalfLife(kimg, ramp_up) for kimg in half_lives), *self.powers]
        if not self.profiles:
            raise ValueError("ema.half_life_kimg and ema.widths are both empty: name one length or more")
        self.snapshot_every = Every(snapshot_every_kimg) if snapshot_every_kimg is not None else None
        self._validation = contextlib.ExitStack()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        module = family_of(pl_module)
        for name, profile in self.named().items():
            module.averages.keep(name, profile, module.generating_networks())

    def named(self) -> dict[str, Profile]:
        """Profiles by name: the first is ``ema``, all others are named by their lengths."""
        first, *others = self.profiles
        return {MAIN: first, **{profile.key: profile for profile in others}}

    def check_saved(self, checkpoint: Checkpoint) -> None:
        """Checks that each power-function average goes on from one in the checkpoint from which a training starts.

        One that began later would weigh its first weights as all that came before.

        Raises:
            ValueError: there is none of that width; one line with those that there are.
        """
        gesso = checkpoint["gesso"]
        # Earlier checkpoints tell no profiles: all but the first average have their profile's name.
        kept = {name: gesso.get("profiles", {}).get(name, name) for name in saved_averages(checkpoint)}
        for name, profile in self.named().items():
            if not isinstance(profile, Power) or kept.get(name) in (profile.key, MAIN):
                continue
            widths = ", ".join(key.removeprefix("power_") for key in kept.values() if key.startswith("power_"))
            raise ValueError(
                f"ema.widths: an average of relative width {profile.width:g} cannot begin at "
                f"{gesso['images_seen'] / 1000:g} kimg, since it counts what came before: keep --ema.widths "
                f"'[{widths}]', which the checkpoint has, or begin a new run"
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        if not self.powers:
            return
        module = family_of(pl_module)
        saving = find(trainer, Checkpoints)
        every = self.snapshot_every or (saving.every if saving else None)
        if trainer.should_stop or (every is not None and clock_of(trainer).due(every, module)):
            # On every rank, since sharded weights are gathered.
            names = {profile.width: name for name, profile in self.named().items() if isinstance(profile, Power)}
            wholes = {width: module.averages.whole(name) for width, name in names.items()}
            if trainer.is_global_zero:
                copied = module.averages.copied(next(iter(names.values())))
                snapshots.write(run_folder(trainer).averages, wholes, copied, images_seen=module.images_seen)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = family_of(pl_module)
        self._validation.enter_context(module.averages.in_place())
        self._validation.enter_context(module.whole_weights())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation.close()

    on_test_start, on_test_end = on_validation_start, on_validation_end
