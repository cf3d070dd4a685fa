"""Several networks under ZeRO, on two gloo ranks: the same training as DDP's, and checkpoints that know no strategy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launch.strategies.ranks import run_ranks

STAGES = ("zero1", "zero2", "zero3")

pytestmark = pytest.mark.slow


def run(out: Path, *jobs: dict[str, Any]) -> dict[str, Any]:
    """Trains every job on two ranks, one after the other, and returns what rank 0 wrote, by the jobs' names."""
    run_ranks("tests.launch.strategies.rank_program", out, jobs, ranks=2)
    return {job["name"]: torch.load(out / f"{job['name']}.pt", weights_only=True) for job in jobs}


def assert_same_training(
    ours: dict[str, Any], reference: dict[str, Any], *, last: int | None = None, moments: bool = True
) -> None:
    """Losses within 1e-4 relative; weights, averages, moments and generated images within fp32's rounding."""
    expected = reference["losses"][-last:] if last else reference["losses"]
    assert len(ours["losses"]) == len(expected)
    for step, (found, wanted) in enumerate(zip(ours["losses"], expected, strict=True)):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (step, name)
    assert_close(ours["state_dict"], reference["state_dict"])
    assert ours["averages"].keys() == reference["averages"].keys() >= {"ema", "half_life_0.1", "power_0.1"}
    for average, wanted in reference["averages"].items():
        assert_close(ours["averages"][average], wanted)
    assert ours["optimizer_states"].keys() == reference["optimizer_states"].keys()
    for network, wanted in reference["optimizer_states"].items() if moments else ():
        found = ours["optimizer_states"][network]
        assert found["state"].keys() == wanted["state"].keys()
        assert [group["params"] for group in found["param_groups"]] == [g["params"] for g in wanted["param_groups"]]
        for name, state in wanted["state"].items():
            assert_close(found["state"][name], state)
    torch.testing.assert_close(ours["images"], reference["images"], rtol=1e-3, atol=1e-4)


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Each tensor as a whole within 3e-4: where rounding takes an activation across its ReLU's corner, which depends on
    the processor, single entries of a moment differ by 1e-2, and the tensor by 1e-4."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        away = (found[name].double() - value.double()).norm().item()
        allowed = 3e-4 * value.double().norm().item() + 1e-7 * value.numel() ** 0.5
        assert away <= allowed, f"{name}: {away:.2g} away, {allowed:.2g} allowed"


def test_every_stage_trains_like_ddp(tmp_path: Path) -> None:
    families, strategies = ("wgan_gp", "r1", "vae"), ("ddp", *STAGES)
    results = run(
        tmp_path,
        *(
            {"name": f"{family}-{strategy}", "family": family, "strategy": strategy, "until": 50}
            for family in families
            for strategy in strategies
        ),
    )
    for family in families:
        reference = results[f"{family}-ddp"]
        for stage in STAGES:
            assert_same_training(results[f"{family}-{stage}"], reference)
        first, last = reference["losses"][0], reference["losses"][-1]
        assert any(abs(first[name] - last[name]) > 1e-3 for name in first), "nothing was trained"


def test_lazy_updates_and_augmentation_are_the_same_under_every_stage(tmp_path: Path) -> None:
    # Few steps: sooner or later rounding takes an activation across its ReLU's corner, which a path length notices.
    job = {"family": "stylegan2", "until": 2}
    results = run(
        tmp_path,
        *({**job, "name": strategy, "strategy": strategy} for strategy in ("ddp", *STAGES)),
        {**job, "name": "one", "strategy": "ddp", "devices": 1},
        *(
            {**job, "name": f"{family}-{name}", "family": family, "strategy": name}
            for family in ("stylegan3", "ganformer")
            for name in ("ddp", STAGES[-1])
        ),
    )
    for name in (*STAGES, "one"):
        assert_same_training(results[name], results["ddp"])
    for family in ("stylegan3", "ganformer"):
        assert_same_training(results[f"{family}-{STAGES[-1]}"], results[f"{family}-ddp"])
    assert results["ddp"]["state_dict"]["augmentation.strength"].item() != 25


@pytest.mark.parametrize("family", ["r3gan", "first_order_r3gan"])
def test_penalties_in_every_step_and_schedules_are_the_same_under_every_stage(family: str, tmp_path: Path) -> None:
    # At stage 3 the discriminator stays at 2 where the penalty differentiates twice.
    job = {"family": family, "until": 4}
    results = run(
        tmp_path,
        *({**job, "name": strategy, "strategy": strategy} for strategy in ("ddp", *STAGES)),
        {**job, "name": "one", "strategy": "ddp", "devices": 1},
    )
    for name in (*STAGES, "one"):
        assert_same_training(results[name], results["ddp"])
        for group in (g for state in results[name]["optimizer_states"].values() for g in state["param_groups"]):
            assert group["betas"][1] == pytest.approx(0.9 + 0.09 * (1 - math.cos(math.pi * 24 / 60)) / 2)


def test_averages_are_read_in_training_alike_and_go_on_exactly(tmp_path: Path) -> None:
    job, strategies = {"family": "teacher", "micro_batches": 2}, ("ddp", *STAGES)
    results = run(
        tmp_path,
        *({**job, "name": name, "strategy": name, "until": 12} for name in strategies),
        *({**job, "name": f"half-{name}", "strategy": name, "until": 6} for name in STAGES),
        *(
            {**job, "name": f"again-{name}", "strategy": name, "until": 12, "resume": str(tmp_path / f"half-{name}")}
            for name in STAGES
        ),
    )
    assert results["ddp"]["losses"][-1]["autoencoder/taught"] > 0
    for stage in STAGES:
        assert_same_training(results[stage], results["ddp"])
        again, whole = results[f"again-{stage}"]["averages"], results[stage]["averages"]
        assert whole.keys() == {"ema", "half_life_0.1", "power_0.1", "teacher"}
        for name, average in whole.items():
            assert all(torch.equal(again[name][key], tensor) for key, tensor in average.items()), (stage, name)


def test_options_mean_the_same_under_zero(tmp_path: Path) -> None:
    options: dict[str, dict[str, Any]] = {
        "weight clipping": {"family": "wgan"},
        "spectral norm and attention": {"family": "spectral"},
        "accumulation and clipping": {"family": "vae", "micro_batches": 2, "gradient_clip_norm": 0.05},
        "AdamW with warm-up and cosine decay": {"family": "scheduled"},
        "gradient checkpointing": {"family": "vae", "gradient_checkpointing": True},
    }
    strategies = (*STAGES, "zero2_offload", "zero3_offload")
    results = run(
        tmp_path,
        *(
            {"name": f"{name}-{strategy}", "strategy": strategy, "until": 10, **job}
            for name, job in options.items()
            for strategy in ("ddp", *strategies)
        ),
    )
    for name in options:
        for strategy in strategies:
            assert_same_training(results[f"{name}-{strategy}"], results[f"{name}-ddp"])


def test_a_scheduled_learning_rate_goes_on_under_another_strategy(tmp_path: Path) -> None:
    job = {"family": "scheduled"}
    results = run(
        tmp_path,
        {**job, "name": "whole", "strategy": "ddp", "until": 12},
        {**job, "name": "half", "strategy": "zero3", "until": 6},
        {**job, "name": "again", "strategy": "zero1", "until": 12, "resume": str(tmp_path / "half")},
    )
    assert_same_training(results["again"], results["whole"], last=6)


def test_muon_trains_alike_on_two_ranks_and_zero_refuses_it(tmp_path: Path) -> None:
    job = {"family": "muon", "until": 10, "strategy": "ddp"}
    results = run(tmp_path, {**job, "name": "two"}, {**job, "name": "one", "devices": 1})
    assert_same_training(results["two"], results["one"])
    with pytest.raises(
        RuntimeError, match="autoencoder: Muon needs whole weight matrices.*adamw.*--trainer.strategy ddp"
    ):
        run(tmp_path, {**job, "name": "refused", "strategy": "zero2"})


def test_all_ranks_skip_what_is_not_finite_on_one(tmp_path: Path) -> None:
    bad, good = (3, 6), [step for step in range(8) if step not in (3, 6)]
    counted = {"vae": {"autoencoder": 2}, "spectral": {"discriminator": 2, "generator": 0}}
    results = run(
        tmp_path,
        *(
            {"name": f"{family}-{strategy}", "family": family, "strategy": strategy, "until": 8, "bad_steps": bad}
            for family in counted
            for strategy in ("ddp", *STAGES)
        ),
    )
    for name, result in results.items():
        family = name.partition("-")[0]
        assert result["gesso"]["skipped_updates"] == counted[family]
        # A loss that is NaN equals nothing; its step changed nothing either.
        result["losses"] = [result["losses"][step] for step in good]
        assert all(tensor.isfinite().all() for tensor in result["state_dict"].values())
        assert_same_training(result, results[f"{family}-ddp"])
    for network, state in results["spectral-ddp"]["optimizer_states"].items():
        assert {int(entry["step"]) for entry in state["state"].values()} == {8 - counted["spectral"][network]}


def test_networks_that_are_updated_together_train_like_ddp(tmp_path: Path) -> None:
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "accumulated and clipped": {"micro_batches": 2, "gradient_clip_norm": 1e-3},
        "one of them overflows": {"burst": 3},
        "a loss is not finite": {"bad_steps": [3]},
        "both overflow in 16-mixed": {"burst": 3, "precision": "16-mixed"},
    }
    strategies = (*STAGES, "zero2_offload", "zero3_offload")
    results = run(
        tmp_path,
        *(
            {"name": f"{name}-{strategy}", "family": "together", "strategy": strategy, "until": 8, **job}
            for name, job in options.items()
            for strategy in ("ddp", *strategies)
        ),
    )
    skipped = {"one of them overflows": (1, 0), "both overflow in 16-mixed": (1, 0), "a loss is not finite": (1, 1)}
    for name, result in results.items():
        option, _, strategy = name.rpartition("-")
        together, alone = skipped.get(option, (0, 0))
        assert result["gesso"]["skipped_updates"] == {"ab": together, "ba": together, "critic": alone}, name
        assert all(tensor.isfinite().all() for tensor in result["state_dict"].values()), name
        if "16-mixed" in option:
            scales = {network: state["scale"] for network, state in result["LossScalePerNetwork"].items()}
            assert scales == {"ab": 2.0**15, "ba": 2.0**15, "critic": 2.0**16}, name
            continue
        if option == "a loss is not finite":
            # A loss that is NaN equals nothing.
            del result["losses"][3]
        if strategy != "ddp":
            assert_same_training(result, results[f"{option}-ddp"])


def test_precisions_mean_the_same_under_zero(tmp_path: Path) -> None:
    fp16 = {"family": "spectral", "until": 6, "precision": "16-mixed", "bad_steps": [2]}
    bf16 = {"family": "vae", "until": 10, "precision": "bf16-true"}
    results = run(
        tmp_path,
        *({**fp16, "name": f"fp16-{name}", "strategy": name} for name in ("ddp", *STAGES)),
        *({**bf16, "name": f"bf16-{name}", "strategy": name} for name in STAGES),
        *({**bf16, "name": f"half-{name}", "strategy": name, "until": 5} for name in STAGES),
        *(
            {**bf16, "name": f"again-{name}", "strategy": name, "resume": str(tmp_path / f"half-{name}")}
            for name in STAGES
        ),
    )
    for name in ("ddp", *STAGES):
        result, reference = results[f"fp16-{name}"], results["fp16-ddp"]
        scales = {network: state["scale"] for network, state in result["LossScalePerNetwork"].items()}
        assert scales == {"discriminator": 2.0**15, "generator": 2.0**16}
        for step, (found, wanted) in enumerate(zip(result["losses"], reference["losses"], strict=True)):
            if step != 2:
                assert found == pytest.approx(wanted, rel=2e-2, abs=2e-3)
    for name in STAGES:
        # fp32 masters, which the average follows and a checkpoint keeps.
        weights, average = results[f"bf16-{name}"]["state_dict"], results[f"bf16-{name}"]["averages"]["ema"]
        for state in (weights, average):
            assert all(tensor.dtype == torch.float32 for tensor in state.values())
            assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in state.values())
        assert_close(results[f"again-{name}"]["state_dict"], weights)
        assert_close(results[f"again-{name}"]["averages"]["ema"], average)


def test_synchronised_batch_norm_makes_two_ranks_one(tmp_path: Path) -> None:
    strategies = {"vae": ("ddp", "zero3"), "conditional": ("ddp", "zero2"), "biggan": ("ddp", "zero3")}
    job = {"until": 4, "sync_batchnorm": True}
    results = run(
        tmp_path,
        *(
            {**job, "name": f"{family}-{strategy}", "family": family, "strategy": strategy}
            for family, names in strategies.items()
            for strategy in names
        ),
        *({**job, "name": family, "family": family, "strategy": "ddp", "devices": 1} for family in strategies),
    )
    for family, names in strategies.items():
        for strategy in names:
            # Biases that a norm takes away have no gradient but that of rounding.
            assert_same_training(results[f"{family}-{strategy}"], results[family], moments=family != "biggan")


def test_a_checkpoint_resumes_under_any_strategy_on_any_number_of_ranks(tmp_path: Path) -> None:
    strategies = ("ddp", *STAGES)
    job = {"family": "wgan_gp"}
    resumes = [
        {
            **job,
            "name": f"{saved_by}-{strategy}-{ranks}",
            "strategy": strategy,
            "devices": ranks,
            "until": 20,
            "resume": str(tmp_path / f"saved-{saved_by}"),
        }
        # One rank after two: DeepSpeed numbers parameters for as long as a process lives, alike on all its ranks.
        for ranks in (2, 1)
        for saved_by in strategies
        for strategy in strategies
    ]
    results = run(
        tmp_path,
        {**job, "name": "whole", "strategy": "ddp", "until": 20},
        *({**job, "name": f"saved-{name}", "strategy": name, "until": 10} for name in strategies),
        *resumes,
    )
    for resume in resumes:
        assert_same_training(results[str(resume["name"])], results["whole"], last=10)


def test_diffusion_models_train_like_ddp(tmp_path: Path) -> None:
    """With dropped labels, weights that are edited after each step, a target without a gradient, and a derivative."""
    strategies = {
        "edm": ("zero3",),
        "flow": ("zero1", "zero3"),
        "ect": ("zero2", "zero3"),
        "edm2": ("zero1", "zero3"),
        "meanflow": STAGES,
    }
    thrifty = {"family": "edm", "micro_batches": 2, "gradient_checkpointing": True}
    results = run(
        tmp_path,
        *(
            {"name": f"{family}-{strategy}", "family": family, "strategy": strategy, "until": 6}
            for family, stages in strategies.items()
            for strategy in ("ddp", *stages)
        ),
        *({"name": f"edm-{name}-thrifty", "strategy": name, "until": 6, **thrifty} for name in ("ddp", *STAGES)),
    )
    for name, result in results.items():
        assert_same_training(result, results[f"{name.partition('-')[0]}-ddp"])
        moments = result["optimizer_states"]["network"]["state"].values()
        assert all(moment["exp_avg"].norm() > 0 for moment in moments), name


@pytest.mark.parametrize("family", ["ect", "progressive"])
def test_a_student_goes_on_under_another_strategy(family: str, tmp_path: Path) -> None:
    """Stages of 3 steps: the second half begins within one. No optimizer has the teacher."""
    job = {"family": family, "until": 8}
    after = {"ddp": "zero3", "zero2": "zero1", "zero3": "ddp"}
    results = run(
        tmp_path,
        {**job, "name": "whole", "strategy": "ddp"},
        *({**job, "name": f"half-{name}", "strategy": name, "until": 4} for name in after),
        *(
            {**job, "name": f"again-{name}", "strategy": then, "resume": str(tmp_path / f"half-{name}")}
            for name, then in after.items()
        ),
    )
    for name in after:
        assert_same_training(results[f"again-{name}"], results["whole"], last=4)
    if family == "progressive":
        teachers = [
            results[name]["state_dict"]["teacher_network.network.conv_in.weight"] for name in ("half-ddp", "whole")
        ]
        assert not torch.allclose(*teachers, rtol=1e-3)
