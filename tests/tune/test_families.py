"""Sweeps of real families: the weights of their losses move the metrics as theory says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pictures import style_folder
from tests.tune.lab import WHOLE_SWEEPS, gesso
from tune.effects import Effect, effects
from tune.sweep import Sweep, open_sweep
from tune.watch import Row, read_rows

pytestmark = WHOLE_SWEEPS


def sweep_of(recipe: str, root: Path, **space: str) -> list[str]:
    file = root / "space.yaml"
    file.write_text("".join(f"model.{name}: {drawn}\n" for name, drawn in space.items()))
    return [
        *("tune", f"--config={recipe}", f"--space={file}", "--data.workers=0"),
        *(f"--root={root / 'sweeps'}", "--run.wandb=disabled", "--trainer.precision=32-true"),
    ]


def run(command: list[str], root: Path) -> tuple[Sweep, list[Row], dict[tuple[str, str], Effect]]:
    gesso(*command)
    (path,) = (root / "sweeps").iterdir()
    sweep, rows = open_sweep(path), read_rows(open_sweep(path))
    found = effects(rows, sweep.space, sweep.objectives)
    return sweep, rows, {(effect.dimension.name, effect.metric): effect for effect in found}


@pytest.mark.proof
def test_beta_trades_reconstruction_against_kl(shards: Path, tmp_path: Path) -> None:
    command = [
        *sweep_of("mnist-vae", tmp_path, beta="loguniform(0.05, 20)"),
        *(
            f"--data.path={shards}",
            "--data.global_batch_size=32",
            "--model.autoencoder.width=8",
            "--model.optimizer.lr=2e-3",
        ),
        *("--metric=val/reconstruction", "--scheduler=asha", "--num-samples=8", "--grace-kimg=3", "--run.kimg=12"),
        *("--evaluation.every_kimg=3", "--evaluation.metrics=[]", "--checkpoints.monitor=null"),
    ]
    sweep, rows, found = run(command, tmp_path)
    assert len(rows) == 8
    assert {row.state for row in rows} == {"finished", "stopped"}
    assert sum(row.kimg for row in rows) < 0.6 * 8 * 12
    # A higher weight of the KL term: less KL, at the price of reconstruction.
    assert found["model.beta", "val/kl"].rho < -0.9
    assert found["model.beta", "val/reconstruction"].rho > 0.9
    assert "What each option moved" in (sweep.path / "report.html").read_text()


@pytest.mark.proof
def test_style_weight_trades_content_against_style(tmp_path: Path) -> None:
    folder = style_folder(tmp_path)
    command = [
        *sweep_of("fast-style", tmp_path, style_weight="loguniform(1, 100)", tv_weight="loguniform(0.01, 3)"),
        *(f"--data.path={folder / 'shards'}", f"--model.styles=[{folder / 'wheat.png'}]", "--model.network=light"),
        *("--model.resolution=48", "--model.style_size=64", "--model.lr=2e-3", "--data.crop=center"),
        *("--metric=val/style", "--metric=val/content", "--search=tpe", "--num-samples=8", "--run.kimg=0.08"),
        *(
            "--evaluation.every_kimg=0.08",
            "--evaluation.metrics=[]",
            "--checkpoints.monitor=null",
            "--ema.half_life_kimg=0.01",
        ),
    ]
    sweep, rows, found = run(command, tmp_path)
    assert [row.state for row in rows] == ["finished"] * 8
    assert found["model.style_weight", "val/style"].rho < -0.7
    assert found["model.style_weight", "val/content"].rho > 0.7
    # No trial is the best in both.
    front = sorted(sweep.path.glob("pareto-*.yaml"))
    assert len(front) >= 2
    assert "Pareto front" in (sweep.path / "report.html").read_text()
