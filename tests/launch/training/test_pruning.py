"""`gesso prune`: a run's heaviest channels begin a narrower run, which is a run like any other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from gesso.cli.main import main
from launch.checkpoints import layout
from launch.inference.loading import load_family
from lightning_modules.networks.pruning import pruned_state

pytestmark = pytest.mark.slow

TINY = [
    *("--data.global_batch_size=16", "--run.kimg=0.032", "--run.wandb=disabled", "--trainer.accelerator=cpu"),
    *("--trainer.precision=32-true", "--evaluation.metrics=[]", "--previews.every_kimg=0.032", "--previews.nearest=0"),
    *("--checkpoints.monitor=null", "--checkpoints.every_kimg=0.032"),
]


@pytest.fixture(autouse=True)
def fresh_identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GESSO_RUN", raising=False)
    yield
    os.environ.pop("GESSO_RUN", None)


def test_a_run_is_pruned_trained_and_resumed(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    widths = ["--model.generator.width=16", "--model.discriminator.width=8", f"--data.path={shards}"]
    assert main(["fit", "--config=mnist-dcgan", *widths, *TINY, f"--run.root={tmp_path / 'wide'}"]) == 0
    (wide,) = (tmp_path / "wide").iterdir()
    # At a learning rate of 0 it stays what it began with.
    still = ["--model.generator_optimizer.lr=0", "--model.discriminator_optimizer.lr=0"]
    os.environ.pop("GESSO_RUN", None)
    argv = ["prune", str(wide), "--channels", "0.25", "--", *still, f"--run.root={tmp_path / 'narrow'}"]
    assert main(argv) == 0
    assert "generator.width: 16 to 4" in capsys.readouterr().err
    (run,) = (tmp_path / "narrow").iterdir()
    assert run.name.startswith("dcgan-pruned-")
    config = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert (config["generator"]["width"], config["pruned_from"]) == (4, str(wide.resolve()))
    module, _ = load_family(wide)
    narrow = layout.read(run / "checkpoints" / "last")["state_dict"]
    of_generator = {name.removeprefix("generator."): narrow[name] for name in narrow if name.startswith("generator.")}
    groups = module.generator.channel_groups()
    for name, value in pruned_state(module.generator.state_dict(), of_generator, groups).items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(of_generator[name], value), name
    # It does not need the wide run any more.
    shutil.rmtree(wide)
    os.environ.pop("GESSO_RUN", None)
    assert main(["fit", "--resume", str(run), "--run.kimg=0.048"]) == 0
    assert main(["generate", str(run), "--num", "4", "--grid", str(tmp_path / "four.png")]) == 0


def test_what_cannot_be_pruned_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["no-run"], "no-run"),
        (["no-run", "--channels", "1.5"], "it is the share that is kept: above 0 and below 1"),
        (["no-run", "--", "--config=mnist-dcgan"], "leave out --config"),
    ):
        assert main(["prune", *words]) == 2
        assert said in capsys.readouterr().err
