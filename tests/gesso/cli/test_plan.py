"""`gesso plan`: what it prints, and mistakes in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gesso.cli.main import main
from launch.planning.memory import (
    STRATEGIES,
)
from launch.planning.speed import OVERLAP
from lightning_modules.gan.dcgan import DCGAN

PLAN = ["plan", "--config", "mnist-dcgan", "--model.generator.width", "8", "--model.discriminator.width", "8"]


@pytest.mark.slow
def test_a_plan_needs_neither_data_nor_gpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    here = ["--data.path", str(tmp_path / "nowhere")]
    assert main([*PLAN, *here, "--devices", "2", "--nodes", "2", "--memory", "24"]) == 0
    out = capsys.readouterr().out
    assert "DCGAN on 4 ranks (2 x 2), 8 images at once on each: global batch 32" in out
    assert "bf16-mixed" in out
    module = DCGAN.from_options({"resolution": 32, "channels": 1, "width": 8, "latent_dim": 64, "num_classes": 10})
    table = {line.split()[0]: line for line in out.splitlines() if line}
    for name in ("generator", "discriminator"):
        assert f"{sum(p.numel() for p in getattr(module, name).parameters()):,}" in table[name]
    assert all(strategy.name in table for strategy in STRATEGIES)
    assert "discriminator: differentiated twice, so at stage 2 under zero3" in out
    assert out.splitlines()[-1].startswith("the first that fits into 24 GiB")
    assert out.splitlines()[-1].endswith("--trainer.strategy ddp")
    assert "GESSO_RUN" not in os.environ


@pytest.mark.slow
def test_a_plan_leaves_out_what_the_optimizer_cannot_have(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.generator_optimizer.kind", "muon", "--ema.half_life_kimg", "[1.0, 10.0]"]
    assert main([*PLAN, *options]) == 0
    out = capsys.readouterr().out
    assert "ddp only; generator: Muon needs whole weight matrices" in out
    rows = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert "ddp" in rows
    assert not {f"zero{stage}" for stage in (1, 2, 3)} & set(rows)
    generator = next(line for line in out.splitlines() if line.startswith("generator ")).split()
    # Name, parameters, trained, averages.
    assert generator[3] == "2"


@pytest.mark.slow
@pytest.mark.process
def test_a_plan_follows_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    config = "{zero_optimization: {reduce_bucket_size: 26214400}}"
    strategy = f"{{class_path: launch.strategies.zero.MultiNetworkZeRO, init_args: {{config: {config}}}}}"
    overrides = ["--trainer.devices", "4", "--trainer.precision", "32-true", "--trainer.strategy", strategy]
    assert main([*PLAN, *overrides, "--memory", "0.001"]) == 0
    out = capsys.readouterr().out
    assert "on 4 ranks (1 x 4)" in out
    assert "fp32 throughout" in out
    zero2 = next(line for line in out.splitlines() if line.startswith("zero2 "))
    assert "100.0 MiB" in zero2
    assert out.splitlines()[-1].startswith("nothing fits into 0.001 GiB; the least is ddp")


@pytest.mark.slow
def test_a_plan_knows_how_long_training_is(capsys: pytest.CaptureFixture[str]) -> None:
    """R3GAN's schedules end with the training, and so do learning rates: one step needs to know when."""
    narrow = [f"--model.{network}.widths=[16, 16, 16, 8]" for network in ("generator", "discriminator")]
    groups = [f"--model.{network}.group_width=8" for network in ("generator", "discriminator")]
    assert main(["plan", "--config", "mnist-r3gan", *narrow, *groups, "--bandwidth", "10", "--step-ms", "9"]) == 0
    assert "discriminator: differentiated twice" in capsys.readouterr().out


@pytest.mark.slow
def test_a_plan_predicts_the_time_of_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--devices", "8", "--nodes", "2", "--bandwidth", "0.1", "--latency-ms", "1", "--step-ms", "20"]
    assert main([*PLAN, *options, "--overlap", "0"]) == 0
    out = capsys.readouterr().out
    module = DCGAN.from_options({"resolution": 32, "channels": 1, "width": 8, "latent_dim": 64, "num_classes": 10})
    trained = 4 * sum(p.numel() for p in module.parameters())
    buffers = sum(b.nbytes for b in module.buffers())
    # Two networks' gradients twice through the ring, buffers once; a message for each.
    exchange = 1e3 * (2 * 15 / 16 * trained + buffers) / 0.1e9 + 2 + bool(buffers)
    last = [line for line in out.splitlines() if line.startswith("ddp ")][-1].split()
    milliseconds, images, efficiency = last[3:7], last[7], last[8]
    assert float(milliseconds[0]) == 20
    assert float(milliseconds[1]) == pytest.approx(exchange, abs=0.01)
    assert float(milliseconds[3]) == pytest.approx(20 + exchange, abs=0.01)
    assert float(images.replace(",", "")) == pytest.approx(32 / (0.02 + exchange / 1e3), abs=1)
    assert efficiency == f"{20 / (20 + exchange):.1%}"
    assert "as given" in out
    assert "share of it: 0." in out
    assert "each node's network: 0.1 GB/s" in out
    # With each strategy's own overlap, gradients travel under ddp's backward pass, but for their messages' latency.
    assert main([*PLAN, *options]) == 0
    out = capsys.readouterr().out
    own = [line for line in out.splitlines() if line.startswith("ddp ")][-1].split()
    assert float(own[5]) == pytest.approx(1e3 * 2 * 15 / 16 * trained / 0.1e9, abs=0.01)
    assert float(own[6]) == pytest.approx(20 + exchange - float(own[5]), abs=0.02)
    assert f"share of it: ddp {OVERLAP[0]:g}, zero0 {OVERLAP[0]:g}, zero1 0, zero2 0, zero3 1." in out


@pytest.mark.slow
def test_a_step_that_is_not_given_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--trainer.precision", "32-true", "--bandwidth", "10", "--overlap", "1"]) == 0
    out = capsys.readouterr().out
    assert "32 images, measured here, on " in out
    assert "share of it: 1." in out
    ddp = [line for line in out.splitlines() if line.startswith("ddp ")][-1].split()
    assert ddp[-1] == "100.0%"  # one rank


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*PLAN, "--bandwidth", "0"], "--bandwidth 0.0: must be more than 0"),
        ([*PLAN, "--bandwidth", "50", "--step-ms", "nan"], "--step-ms nan: must be more than 0"),
        ([*PLAN, "--bandwidth", "50", "--overlap", "2"], "--overlap 2.0: is a share, 0 to 1"),
        ([*PLAN, "--step-ms", "20"], "a step's time needs --bandwidth as well, in GB/s"),
        (["plan"], "name a recipe: gesso plan --config RECIPE"),
        (["plan", "--config", "mnist-dcgam"], "did you mean mnist-dcgan"),
        ([*PLAN, "--devices", "0"], "--devices 0: must be more than 0"),
        ([*PLAN, "--memory", "-1"], "--memory -1.0: must be more than 0"),
        ([*PLAN, "--devices", "3"], "a global batch of 32 images cannot be cut into 3 ranks"),
        (
            [*PLAN, "--trainer.precision", "bf16-true"],
            "precision bf16-true: a plan knows 32-true, bf16-mixed, 16-mixed",
        ),
        ([*PLAN, "--model.widht", "8"], "widht"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_other_verbs_still_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fetch", "--list", "--devices"])
    assert end.value.code == 2
    assert "unrecognized arguments: --devices" in capsys.readouterr().err


@pytest.mark.process
def test_help_needs_no_torch() -> None:
    script = (
        "import sys\nfrom gesso.cli.main import main\n"
        "try:\n    main(['plan', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'lightning', 'numpy', 'rich'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--memory GIB" in done.stdout
