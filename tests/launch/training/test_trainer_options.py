"""Options of Lightning's Trainer that gesso cannot honour name the one that it has."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest

from launch.training.lightning_cli import GessoCLI
from launch.training.trainer_options import REPLACED, check_trainer_options, naming_the_trainer
from launch.training.training import Training


@pytest.mark.parametrize(
    ("name", "value", "ours"),
    [
        ("gradient_clip_val", 1.0, "model.gradient_clip_norm"),
        ("accumulate_grad_batches", 2, "model.micro_batches"),
        ("barebones", True, "run.wandb"),
        ("val_check_interval", 100, "evaluation.every_kimg"),
        ("default_root_dir", "elsewhere", "run.root"),
        ("devices", 0, "1 rank or more"),
        ("devices", "[]", "1 rank or more"),
        ("strategy", "fsdp", "zero3"),
        ("strategy", "deepspeed_stage_2", "zero2"),
    ],
)
def test_each_is_refused_by_name(name: str, value: object, ours: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.{name} .*{ours}"):
        check_trainer_options({name: value})


def test_what_leaves_them_alone_is_taken() -> None:
    check_trainer_options({name: neutral for name, (neutral, _) in REPLACED.items()})
    check_trainer_options(dict.fromkeys(REPLACED) | {"strategy": "zero2_offload", "devices": "auto"})


def test_what_lightning_refuses_is_one_line() -> None:
    with pytest.raises(ValueError, match="^trainer: .*") as caught, naming_the_trainer():
        L.Trainer(accelerator="cpu", devices="two")
    assert "\n" not in str(caught.value)


def test_the_defaults_of_the_parser_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = Training("mnist-dcgan").parse()
    assert isinstance(parsed, GessoCLI)
    check_trainer_options(parsed.config.trainer)


@pytest.mark.parametrize("wanted", [True, False])
def test_graphs_are_asked_for_beside_the_options_of_lightning(wanted: bool, tmp_path: Path) -> None:
    overrides = {"trainer.cuda_graphs": wanted, "trainer.accelerator": "cpu"}
    # The data is looked at when training begins.
    cli = Training("mnist-dcgan", overrides, folder=tmp_path).build()
    assert isinstance(cli, GessoCLI)
    assert cli.model.cuda_graphs is wanted
    assert Training("mnist-dcgan").parse().config.trainer.cuda_graphs is False
