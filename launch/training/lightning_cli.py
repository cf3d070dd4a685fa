"""LightningCLI for recipes: builds trainer, family and data module from plain data."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import lightning as L
from jsonargparse import ArgumentError, Namespace, set_loader
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from datamodules.shards import ShardData
from gesso.common.files import writing_whole
from gesso.common.ranges import Count, Positive, Range
from gesso.common.strict_yaml import YAMLError, load_yaml
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import Clock
from launch.callbacks.ema import EMA
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.facts import Facts
from launch.callbacks.interruption import Interruption
from launch.callbacks.opening import Opening
from launch.callbacks.previews import Previews
from launch.callbacks.progress import Progress
from launch.runs.folder import RunFolder, new_run_path
from launch.runs.tracking import MetricsCSV
from launch.runs.weights_and_biases import WandbMode, wandb_logger
from launch.strategies import ddp, zero
from launch.strategies.supervision import OtherRanks
from launch.training.first_cause import FirstCause
from launch.training.hardware import affordable_precision, usable_strategy
from launch.training.layers import CATALOGUES, Layer
from launch.training.leftovers import check_rank
from launch.training.numbers import check_numbers
from launch.training.parser_errors import parser_error
from launch.training.trainer_options import check_trainer_options, naming_the_trainer
from lightning_modules.core.family import ImageFamily


@dataclass
class RunOptions:
    """Options of a run.

    Args:
        kimg: length of the training in thousands of images.
        log_every_kimg: interval of logging losses and images/s, in thousands of images.
        name: of the run folder; the date is added.
        root: folder of the run folders.
        project: W&B project.
        group: W&B group of runs that belong together, such as seeds of one recipe; a sweep's trials have one.
        wandb: ``auto`` is online where there is a key, else offline.
        nonfinite_limit: training stops when a network's losses or gradients were not finite in so many updates in a
            row; until then such updates are skipped and counted.
    """

    kimg: Annotated[float, Range(0.001)] = 1000.0
    log_every_kimg: Positive = 5.0
    name: str = "run"
    root: str = "runs"
    project: str = "gesso"
    group: str | None = None
    wandb: WandbMode = "auto"
    nonfinite_limit: Count = 20


#: Sections of a recipe beside model, data and trainer, and what is built of each: callbacks in their order.
SECTIONS: dict[str, type] = {
    "run": RunOptions,
    "ema": EMA,
    "evaluation": Evaluation,
    "previews": Previews,
    "checkpoints": Checkpoints,
}

#: What a recipe may hold at its top, and a run's config.yaml does.
TOP_LEVEL = ("seed_everything", "trainer", *CATALOGUES, *SECTIONS)

#: Options of the command line that belong to no recipe.
NOT_OF_A_RECIPE = {
    "--resume": "a run folder: train on from its last checkpoint, with its own config.yaml",
    "--checkpoint": "a checkpoint, or a run for its last one: begin another run from its state",
}


#: An option beside those of Lightning's Trainer.
CUDA_GRAPHS = "replay whole training steps as CUDA graphs, where the family's steps allow it"


class GessoCLI(LightningCLI):
    """LightningCLI with gesso's callbacks as options and a run folder under every trainer.

    Parses layers of plain data; builds data module, family and trainer out of them.

    Args:
        layers: as ``launch.training.layers`` makes them.
        folder: the run folder; None: a fresh one under ``run.root``.
        callbacks: given from Python; they come last, and are not part of the recipe.
        checkpoint: the checkpoint from which training continues, for the other ranks that this process starts.
        logs: whether the trainer logs to metrics.csv and W&B.
        accelerator: on which the trainer is built, in place of the config's, which keeps its own.

    Raises:
        ValueError: an option is unknown or has a wrong value; one line.
    """

    model: ImageFamily
    datamodule: ShardData
    trainer: L.Trainer

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        folder: Path | None = None,
        callbacks: Sequence[L.Callback] = (),
        checkpoint: Path | None = None,
        logs: bool = False,
        accelerator: str | None = None,
    ) -> None:
        self._layers = layers
        self._folder = folder
        #: Whether the run folder is one that nobody else knows of, under ``run.root``.
        self.new_folder = folder is None
        if wrong := [one for one in callbacks if not isinstance(one, L.Callback)]:
            raise ValueError(f"{wrong[0]!r} among the callbacks is none: it must be a lightning.Callback")
        self._callbacks = callbacks
        self._checkpoint = checkpoint
        self._logs = logs
        self._accelerator = accelerator
        ddp.register()
        zero.register()
        quiet()
        set_loader("yaml", load_value, exceptions=(YAMLError,))
        try:
            super().__init__(
                ImageFamily,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                parser_kwargs={"prog": "gesso fit", "exit_on_error": False},
                trainer_defaults={
                    "max_epochs": -1,
                    "num_sanity_val_steps": 0,
                    "enable_model_summary": False,
                    "use_distributed_sampler": False,
                },
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                run=False,
            )
        except (ArgumentError, ValueError) as error:
            raise ValueError(parser_error(str(error))) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, kind in SECTIONS.items():
            if issubclass(kind, L.Callback):
                parser.add_lightning_class_args(kind, name)
            else:
                parser.add_class_arguments(kind, name)
        parser.add_argument("--trainer.cuda_graphs", type=bool, default=False, help=CUDA_GRAPHS)

    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        config: Namespace | None = None
        for layer in self._layers:
            for name in (*SECTIONS, "trainer"):
                content = layer.get(name)
                # The parser would look for a file of that name.
                if not (content is None or isinstance(content, dict) or str(content).lstrip().startswith("{")):
                    raise ValueError(f"{name} is {content!r}; it must map options to values")
                if isinstance(content, dict):
                    _check_names(content, name)
            config = parser.parse_object(layer, config)
        assert config is not None
        check_numbers(config, SECTIONS)
        self.config = config

    def instantiate_classes(self) -> None:
        config = self.config
        if self._accelerator is not None:
            config = config.clone()
            config.trainer.accelerator = self._accelerator
        self.config_init = self.parser.instantiate_classes(config)
        self.datamodule = self.config_init.data
        self.model = self.config_init.model
        self.model.cuda_graphs = self.config_init.trainer.cuda_graphs
        self.model.nonfinite_limit = self.config_init.run.nonfinite_limit
        # Schedules may end there, also of a training that is only planned.
        self.model.total_kimg = self.config_init.run.kimg
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: object) -> L.Trainer:
        """Builds the trainer with all its callbacks and loggers."""
        options, trainer = self.config_init.run, self.config_init.trainer
        check_trainer_options(trainer)
        run = RunFolder(self._folder or new_run_path(options.root, options.name))
        whole: Any = self._trainer_options(run, options, trainer) | kwargs
        with naming_the_trainer():
            built = self.trainer_class(**whole)
        check_rank(built.num_devices * built.num_nodes)
        return built

    def _trainer_options(self, run: RunFolder, options: RunOptions, trainer: Namespace) -> dict[str, object]:
        return {
            **{name: value for name, value in trainer.items() if name != "cuda_graphs"},
            "callbacks": [
                FirstCause(),
                Opening(),
                Clock(options.kimg, options.log_every_kimg),
                Facts(),
                *([] if trainer.enable_progress_bar is False else [Progress()]),
                *(trainer.callbacks or []),
                Interruption(),
                *(self.config_init[name] for name in self.parser.callback_keys),
                OtherRanks(self.text(), self._checkpoint),
                *self._callbacks,
            ],
            "logger": self._loggers(run) if self._logs else False,
            "default_root_dir": str(run.path),
            "precision": affordable_precision(trainer.precision, trainer.accelerator),
            "strategy": usable_strategy(trainer.strategy, trainer.devices, trainer.num_nodes),
            # Lightning counts batches; every interval of ours counts images.
            "val_check_interval": math.ceil(
                self.config_init.evaluation.every_kimg * 1000 / self.datamodule.global_batch_size
            ),
            "check_val_every_n_epoch": None,
        }

    def _loggers(self, run: RunFolder) -> list[Logger]:
        options = self.config_init.run
        config = load_yaml(self.text())
        assert isinstance(config, dict)
        wandb = wandb_logger(run, options.project, options.wandb, config, group=options.group)
        return [MetricsCSV(run.metrics), *([wandb] if wandb else [])]

    def text(self) -> str:
        """The resolved config as YAML."""
        return self.parser.dump(self.config, skip_unset=False)


def _check_names(options: Mapping[object, object], section: str) -> None:
    """Raises a ValueError where an option's name is none: the parser would not say in which section."""
    for name, value in options.items():
        if not isinstance(name, str) or not all(name.split(".")) or " " in name:
            raise ValueError(f"{section} has no option {name!r}; `gesso fit --help` lists its options")
        if isinstance(value, dict):
            _check_names(value, f"{section}.{name}")


def load_value(text: str) -> object:
    """What a word of the command line, or a file, means to the parser: our YAML, not YAML 1.1.

    As the parser's own loader, it leaves alone what only looks like a mapping: ``a:``, ``{a, b}``.
    """
    value = load_yaml(text)
    if isinstance(value, dict) and value and all(item is None for item in value.values()):
        words = set(text.strip(" {}").replace(" ", "").split(","))
        if words == set(value) or text.strip() == f"{next(iter(value))}:":
            return text
    return value


class Parsed(GessoCLI):
    """Parses only."""

    def instantiate_classes(self) -> None:
        pass


def list_options(argv: Sequence[str]) -> int:
    """Prints the answers to ``--help``, ``--model.help DCGAN`` and ``--print_config``, as LightningCLI does.

    Args:
        argv: the command line, with files for recipes.
    """

    class Asked(Parsed):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            super().add_arguments_to_parser(parser)
            # Of the command line alone: no recipe has them, and `--print_config` leaves them out.
            for name, what in NOT_OF_A_RECIPE.items():
                parser.add_argument(name, metavar="PATH", default=argparse.SUPPRESS, help=what)

        def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
            self.config = parser.parse_args(list(argv))

    for catalogue in CATALOGUES.values():
        for name in catalogue.names():
            # A class that cannot be imported must not hide the others.
            with contextlib.suppress(ImportError, ValueError):
                catalogue.find(name)
    Asked([])
    return 0


def check_data(cli: GessoCLI) -> None:
    """Checks that the data fits the family; raises a ValueError if not."""
    data = cli.datamodule
    spec = cli.model.batch_spec()
    if (data.latents is not None) != spec.latents:
        autoencoder = "set --model.latents.autoencoder to the run that they were encoded with"
        has, wants, remedy = (
            ("latents", "pictures", autoencoder if "latents" in cli.model.hparams else "name a set of pictures")
            if data.latents is not None
            else ("pictures", "latents", f"`gesso encode {data.path} --with RUN OUT` makes them")
        )
        raise ValueError(f"{data.path}: holds {has}, and {cli.model.described()} is trained on {wants} here: {remedy}")
    data.check_held_out()
    # Only asked where it matters: an older set's index is read for it.
    unlabelled = data.unlabelled if spec.num_classes else 0
    cli.model.check_data(
        channels=data.channels, resolution=data.size, num_classes=data.num_classes, unlabelled=unlabelled
    )
    ranks, parts = cli.trainer.num_devices * cli.trainer.num_nodes, cli.model.micro_batches
    if data.global_batch_size % ranks == 0 and (images := data.global_batch_size // ranks) % parts:
        raise ValueError(f"model.micro_batches is {parts}: {images} images of a rank make no {parts} equal parts")


def save_config(cli: GessoCLI, run: RunFolder) -> None:
    """Writes the resolved config, with which the run is resumed from any folder."""
    config = cli.config.clone()
    for name, path in cli.datamodule.paths().items():
        config.data.init_args[name] = os.path.abspath(path)
    for name, files in cli.model.pictures().items():
        config.model.init_args[name] = [os.path.abspath(file) for file in files]
    if autoencoder := cli.model.autoencoder_run():
        config.model.init_args.latents.autoencoder = autoencoder
    with writing_whole(run.config) as partial:
        cli.parser.save(config, partial, skip_unset=False, overwrite=True, multifile=False)


def quiet() -> None:
    """Silences messages and warnings of the libraries that do not help the user."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    # A login node has srun, too.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system")
    # Between Lightning 2.6 and newer releases of its dependencies; a user cannot fix them.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    warnings.filterwarnings("ignore", message=".*JsonargparseDeprecationWarning.*")
    # Between DeepSpeed 0.19 and torch 2.14.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*instantiate_classes.*was deprecated.*")
