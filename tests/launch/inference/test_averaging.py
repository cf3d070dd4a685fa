"""Averages of another length after training, against the stored ones and one that was tracked directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from gesso.cli.main import main
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.ema import EMA
from launch.checkpoints import layout
from launch.checkpoints.snapshots import moments, reconstruct
from launch.inference.averaging import average_of_width
from launch.inference.loading import load_family
from lightning_modules.core.profiles import Power
from tests.launch.callbacks.small_training import train


class Direct(L.Callback):
    """Tracks the average of width 0.075 itself."""

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        pl_module.averages.keep("direct", Power(0.075), ("generator",))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    ema = EMA([0.01, 0.05], widths=[0.05, 0.10], snapshot_every_kimg=0.016)
    train(path, 0.32, ema, Direct(), Checkpoints())
    (path / "config.yaml").write_text("")
    return path


def averages(run: Path) -> dict[str, dict[str, Tensor]]:
    return layout.read(run / "checkpoints" / "last")["averages"]


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The relative distance of all weights together."""
    assert ours.keys() == theirs.keys()
    weights = [name for name in theirs if "num_batches" not in name and not name.endswith(("_u", "_v"))]
    flat = [torch.cat([state[name].double().flatten() for name in weights]) for state in (ours, theirs)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


@pytest.mark.slow
def test_several_averages_stand_side_by_side(run: Path) -> None:
    saved = averages(run)
    assert saved.keys() == {"ema", "half_life_0.05", "power_0.05", "power_0.1", "direct"}
    weight = "generator.blocks.0.norm.weight"
    assert len({tuple(average[weight].tolist()) for average in saved.values()}) == 5


def test_stored_widths_come_back(run: Path) -> None:
    assert list(moments(run / "averages")) == list(range(16, 321, 16))
    for width in (0.05, 0.10):
        assert distance(reconstruct(run / "averages", width, 320)[0], averages(run)[f"power_{width:g}"]) < 1e-5


def test_another_width_is_the_one_that_was_tracked(run: Path) -> None:
    (ours, error), theirs = reconstruct(run / "averages", 0.075, 320), averages(run)["direct"]
    assert error < 0.01
    assert distance(ours, theirs) < 1e-3
    assert distance(averages(run)["power_0.05"], theirs) > 1e-3
    unit = next(name for name in theirs if name.endswith("_u"))
    assert torch.equal(ours[unit], theirs[unit])


@pytest.mark.slow
def test_what_is_written_generates_like_an_export(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "other.safetensors"
    assert main(["average", str(run), "--width", "0.075", "--at", "0.32", "--out", str(out)]) == 0
    assert "relative width 0.075 at 0.32 kimg" in capsys.readouterr().out
    module, origin = load_family(out)
    assert (origin["images_seen"], origin["average"]) == (320, True)
    wanted, _ = reconstruct(run / "averages", 0.075, 320)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in wanted.items())
    assert main(["generate", str(out), "--num", "2", "--grid", str(tmp_path / "grid.png")]) == 0


@pytest.mark.parametrize("width", [0.0001, 0.01, 0.28])
def test_a_width_that_the_snapshots_cannot_give_is_refused(
    run: Path, tmp_path: Path, width: float, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "far.safetensors"
    assert main(["average", str(run), "--width", str(width), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"no average of relative width {width:g} comes out of what is kept (20 snapshots of width 0.05, 0.1)" in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_a_width_that_comes_out_roughly_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for width, rough in ((0.075, False), (0.03, True)):
        out = tmp_path / f"{width}.safetensors"
        assert main(["average", str(run), "--width", str(width), "--out", str(out)]) == 0
        printed, said = capsys.readouterr()
        assert "(its profile is off by " in printed
        assert ("only roughly" in said) == rough


def test_moments_without_a_snapshot_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no snapshot at 0.05 kimg; choose one at 0.016, 0.032"):
        average_of_width(run, 0.075, images_seen=50)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ValueError, match=r"there is none: train with --ema.widths"):
        average_of_width(tmp_path, 0.075)
