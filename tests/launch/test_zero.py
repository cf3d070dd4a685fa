"""Several networks under ZeRO, on two gloo ranks: the same training as DDP's, and checkpoints that know no strategy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

PROGRAM = Path(__file__).with_name("rank_program.py")
STAGES = ("zero0", "zero1", "zero2", "zero3")

pytestmark = pytest.mark.slow


def run(out: Path, *jobs: dict[str, Any]) -> dict[str, Any]:
    """Trains every job on two ranks, one after the other, and returns what rank 0 wrote, by the jobs' names."""
    arguments = [json.dumps({**job, "port": port}) for job, port in zip(jobs, free_ports(len(jobs)), strict=True)]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2]), "OMP_NUM_THREADS": "1", "DS_BUILD_OPS": "0"}
    logs = [out / f"rank{rank}.log" for rank in range(2)]
    ranks = []
    for rank, log in enumerate(logs):
        with log.open("w") as stream:
            ranks.append(
                subprocess.Popen(
                    [sys.executable, str(PROGRAM), str(out), *arguments],
                    env={**environment, "LOCAL_RANK": str(rank)},
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            )
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):
            for rank in ranks:
                rank.kill()
        time.sleep(0.2)
    codes = [rank.returncode for rank in ranks]
    assert codes == [0, 0], "\n".join(log.read_text()[-4000:] for log in logs)
    return {job["name"]: torch.load(out / f"{job['name']}.pt", weights_only=True) for job in jobs}


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at; held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def assert_same_training(ours: dict[str, Any], reference: dict[str, Any], *, last: int | None = None) -> None:
    """Losses within 1e-4 relative; weights, averages, moments and generated images within fp32's rounding."""
    expected = reference["losses"][-last:] if last else reference["losses"]
    assert len(ours["losses"]) == len(expected)
    for step, (found, wanted) in enumerate(zip(ours["losses"], expected, strict=True)):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (step, name)
    assert_close(ours["state_dict"], reference["state_dict"])
    assert_close(ours["callbacks"]["EMA"]["average"], reference["callbacks"]["EMA"]["average"])
    assert ours["optimizer_states"].keys() == reference["optimizer_states"].keys()
    for network, wanted in reference["optimizer_states"].items():
        found = ours["optimizer_states"][network]
        assert found["state"].keys() == wanted["state"].keys()
        assert [group["params"] for group in found["param_groups"]] == [g["params"] for g in wanted["param_groups"]]
        for name, state in wanted["state"].items():
            assert_close(found["state"][name], state)
    torch.testing.assert_close(ours["images"], reference["images"], rtol=1e-3, atol=1e-4)


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        scale = value.abs().max().item() if value.numel() else 0.0
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-4 * scale + 1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("family", ["wgan_gp", "r1", "vae"])
def test_every_stage_trains_like_ddp(family: str, tmp_path: Path) -> None:
    jobs = [{"name": name, "family": family, "strategy": name, "until": 50} for name in ("ddp", *STAGES)]
    results = run(tmp_path, *jobs)
    for stage in STAGES:
        assert_same_training(results[stage], results["ddp"])
    first, last = results["ddp"]["losses"][0], results["ddp"]["losses"][-1]
    assert any(abs(first[name] - last[name]) > 1e-3 for name in first), "nothing was trained"


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("wgan", {}),
        ("spectral", {}),
        ("vae", {"micro_batches": 2, "gradient_clip_norm": 0.05}),
        ("vae", {"gradient_checkpointing": True}),
    ],
    ids=["weight clipping", "spectral norm and attention", "accumulation and clipping", "gradient checkpointing"],
)
def test_options_mean_the_same_under_zero(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    strategies = ("ddp", "zero1", "zero2", "zero3")
    jobs = [{"name": name, "family": family, "strategy": name, "until": 10, **options} for name in strategies]
    results = run(tmp_path, *jobs)
    for name in strategies[1:]:
        assert_same_training(results[name], results["ddp"])


@pytest.mark.parametrize("family", ["vae", "spectral"])
def test_all_ranks_skip_what_is_not_finite_on_one(family: str, tmp_path: Path) -> None:
    strategies = ("ddp", "zero1", "zero2", "zero3")
    jobs = [{"name": name, "family": family, "strategy": name, "until": 8, "bad_steps": [3, 6]} for name in strategies]
    results = run(tmp_path, *jobs)
    good = [step for step in range(8) if step not in (3, 6)]
    for name in strategies:
        skipped = results[name]["gesso"]["skipped_updates"]
        assert skipped == ({"autoencoder": 2} if family == "vae" else {"discriminator": 2, "generator": 0})
        # A loss that is NaN equals nothing; its step changed nothing either.
        results[name]["losses"] = [results[name]["losses"][step] for step in good]
        assert all(tensor.isfinite().all() for tensor in results[name]["state_dict"].values())
        assert_same_training(results[name], results["ddp"])
    for state in results["ddp"]["optimizer_states"].values():
        assert {int(entry["step"]) for entry in state["state"].values()} <= {6, 8}


def test_fp16_scales_each_networks_loss_alike_on_every_strategy(tmp_path: Path) -> None:
    strategies = ("ddp", "zero1", "zero2", "zero3")
    jobs = [
        {"name": name, "family": "spectral", "strategy": name, "until": 6, "precision": "16-mixed", "bad_steps": [2]}
        for name in strategies
    ]
    results = run(tmp_path, *jobs)
    for name in strategies:
        scales = {network: state["scale"] for network, state in results[name]["LossScalePerNetwork"].items()}
        assert scales == {"discriminator": 2.0**15, "generator": 2.0**16}
        for step, (found, wanted) in enumerate(zip(results[name]["losses"], results["ddp"]["losses"], strict=True)):
            if step != 2:
                assert found == pytest.approx(wanted, rel=2e-2, abs=2e-3)


def test_bf16_weights_have_fp32_masters_that_the_average_follows_and_a_checkpoint_keeps(tmp_path: Path) -> None:
    stages = ("zero1", "zero2", "zero3")
    job = {"family": "vae", "precision": "bf16-true"}
    results = run(
        tmp_path,
        *({**job, "name": name, "strategy": name, "until": 10} for name in stages),
        *({**job, "name": f"{name}-half", "strategy": name, "until": 5} for name in stages),
        *(
            {**job, "name": f"{n}-again", "strategy": n, "until": 10, "resume": str(tmp_path / f"{n}-half")}
            for n in stages
        ),
    )
    for name in stages:
        weights, average = results[name]["state_dict"], results[name]["callbacks"]["EMA"]["average"]
        for state in (weights, average):
            assert all(tensor.dtype == torch.float32 for tensor in state.values())
            assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in state.values())
        again = results[f"{name}-again"]
        assert_close(again["state_dict"], weights)
        assert_close(again["callbacks"]["EMA"]["average"], average)


@pytest.mark.parametrize("family", ["vae", "conditional"])
def test_synchronised_batch_norm_makes_two_ranks_one(family: str, tmp_path: Path) -> None:
    job = {"family": family, "until": 10, "sync_batchnorm": True}
    strategies = ("ddp", "zero2") if family == "conditional" else ("ddp", "zero3")
    results = run(
        tmp_path,
        *({**job, "name": name, "strategy": name} for name in strategies),
        {**job, "name": "one rank", "strategy": "ddp", "devices": 1},
    )
    for name in strategies:
        assert_same_training(results[name], results["one rank"])


@pytest.mark.parametrize("saved_by", ["ddp", "zero1", "zero2", "zero3"])
def test_a_checkpoint_resumes_under_any_strategy_on_any_number_of_ranks(saved_by: str, tmp_path: Path) -> None:
    job = {"family": "wgan_gp"}
    resumes = [
        {**job, "name": f"{strategy}-{ranks}", "strategy": strategy, "devices": ranks, "until": 20}
        # One rank after two: DeepSpeed numbers parameters for as long as a process lives, alike on all its ranks.
        for ranks in (2, 1)
        for strategy in ("ddp", "zero1", "zero2", "zero3")
    ]
    results = run(
        tmp_path,
        {**job, "name": "whole", "strategy": "ddp", "until": 20},
        {**job, "name": "saved", "strategy": saved_by, "until": 10},
        *({**resume, "resume": str(tmp_path / "saved")} for resume in resumes),
    )
    for resume in resumes:
        assert_same_training(results[resume["name"]], results["whole"], last=10)
