"""LightningCLI over recipes, families and data modules: from a command line to trainer, family and data."""

from __future__ import annotations

import logging
import os
import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import datamodules.paired
import datamodules.shards  # noqa: F401 - the command line finds data modules by their names
from gesso.common.files import writing_whole
from gesso.common.text import one_line
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import Clock
from launch.callbacks.ema import EMA
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.interruption import Interruption
from launch.callbacks.previews import Previews
from launch.callbacks.progress import Progress
from launch.runs.folder import RunFolder, new_run_path
from launch.runs.tracking import WandbMode
from launch.strategies import ddp, zero
from launch.training.hardware import affordable_precision
from launch.training.recipes import resolve_recipe
from lightning_modules import FAMILIES
from lightning_modules.core.family import ImageFamily


@dataclass
class RunOptions:
    """One training.

    Args:
        kimg: length of the training in thousands of images.
        log_every_kimg: interval of losses and images/s.
        name: of the run folder; the date is added.
        root: folder of the run folders.
        project: W&B project.
        group: W&B group of runs that belong together, such as seeds of one recipe; a sweep's trials have one.
        wandb: ``auto`` is online where there is a key, else offline.
        nonfinite_limit: training stops when a network's losses or gradients were not finite in so many updates in a
            row; until then such updates are skipped and counted.
    """

    kimg: float = 1000.0
    log_every_kimg: float = 5.0
    name: str = "run"
    root: str = "runs"
    project: str = "gesso"
    group: str | None = None
    wandb: WandbMode = "auto"
    nonfinite_limit: int = 20


class GessoCLI(LightningCLI):
    """LightningCLI with gesso's callbacks as options and a run folder under every trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunOptions, "run")
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.add_lightning_class_args(Previews, "previews")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        options = self.config_init.run
        path = new_run_path(options.root, options.name)
        callbacks = [
            Clock(options.kimg, options.log_every_kimg),
            Progress(),
            *(self.config_init.trainer.callbacks or []),
            Interruption(),
        ]
        trainer = self.config_init.trainer
        kwargs["precision"] = affordable_precision(trainer.precision, trainer.accelerator)
        return super().instantiate_trainer(callbacks=callbacks, logger=False, default_root_dir=str(path), **kwargs)


class Parsed(GessoCLI):
    """Parses only."""

    def instantiate_classes(self) -> None:
        pass


def build(argv: list[str], kind: type[GessoCLI] = GessoCLI) -> GessoCLI:
    """Parses ``argv`` (recipe and overrides) and instantiates trainer, family and data module.

    Args:
        argv: the arguments.
        kind: ``Parsed`` leaves it at that, for who only wants to know whether the types are right.

    Raises:
        ValueError: an option is unknown or has a wrong value; one line.
    """
    for module in FAMILIES.values():
        import_module(module)
    ddp.register()
    zero.register()
    quiet()
    try:
        return kind(
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
            args=argv,
            run=False,
        )
    except (ArgumentError, ValueError) as error:
        raise ValueError(parser_error(str(error))) from error


def check_data(cli: GessoCLI) -> None:
    """Raises a ValueError when the data does not fit the family."""
    data: Any = cli.datamodule
    cli.model.check_data(
        channels=data.channels, resolution=data.size, num_classes=data.num_classes, unlabelled=data.unlabelled
    )


def save_config(cli: GessoCLI, run: RunFolder) -> None:
    """Writes the resolved config, with which the run is resumed from any folder."""
    config = cli.config.clone()
    for name in {"path", "style_path"} & set(vars(config.data.init_args)):
        config.data.init_args[name] = os.path.abspath(config.data.init_args[name])
    if "styles" in config.model.init_args:
        config.model.init_args.styles = [os.path.abspath(file) for file in config.model.init_args.styles]
    with writing_whole(run.config) as partial:
        cli.parser.save(config, partial, skip_unset=False, overwrite=True, multifile=False)


def with_recipes(argv: list[str]) -> list[str]:
    """Replaces a packaged recipe's name after ``--config`` by its file."""
    arguments = list(argv)
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            arguments[position] = f"--config={resolve_recipe(argument.removeprefix('--config='))}"
        elif argument == "--config" and position + 1 < len(arguments):
            arguments[position + 1] = str(resolve_recipe(arguments[position + 1]))
    return arguments


def parser_error(message: str) -> str:
    """What is wrong, out of the parser's account of all that it tried."""
    text = one_line(message)
    inner = re.search(
        r"Problem with given class_path '[\w.]*?(\w+)': (.*?)(?: - Expected a <class 'NoneType'>|$)", text
    )
    if not inner:
        # So it says what a constructor has refused, of a class that is named by its whole path.
        refused = re.search(r"Errors: - (.*?) - Expected a <class 'NoneType'>.*class_path='[\w.]*?(\w+)'", text)
        return f"{refused[2]}: {refused[1]}" if refused else text
    detail = re.sub(r"<class '(\w+)'>", r"\1", inner[2]).replace("typing.Literal", "one of ")
    detail = detail.replace("Parser key ", "").replace("Expected a ", "expected ")
    kind = "model" if inner[1] in FAMILIES else "data"
    return f"{inner[1]}: {detail}; `gesso fit --{kind}.help {inner[1]}` lists its options"


def quiet() -> None:
    """Silences what Lightning says of its own and what is of no use to a person who trains."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    # A login node has srun, too.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system")
    # Between Lightning 2.6 and newer releases of its dependencies; nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    warnings.filterwarnings("ignore", message=".*JsonargparseDeprecationWarning.*")
    # Between DeepSpeed 0.19 and torch 2.14.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*instantiate_classes.*was deprecated.*")
