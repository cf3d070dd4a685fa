"""DeepSpeed still is where `launch/strategies/deepspeed_internals.py` looks for it."""

from __future__ import annotations

import importlib
import inspect
import os
from typing import Any

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")
deepspeed = pytest.importorskip("deepspeed")

from deepspeed.runtime.zero import parameter_offload, partition_parameters, stage3, stage_1_and_2  # noqa: E402

from launch.strategies.deepspeed_internals import leave_out_compiled_collective  # noqa: E402

pytestmark = pytest.mark.slow

FLAT, PARTITIONED = stage_1_and_2.DeepSpeedZeroOptimizer, stage3.DeepSpeedZeroOptimizer_Stage3
#: Where: what is used there.
USED = {
    FLAT: (
        "single_partition_of_fp32_groups",
        "partition_size",
        "round_robin_bit16_groups",
        "overflow",
        "loss_scaler",
        "scaled_global_norm",
    ),
    PARTITIONED: (
        "fp16_groups",
        "fp32_partitioned_groups_flat",
        "overflow",
        "loss_scaler",
        "parameter_offload",
        "_get_norm_groups",
    ),
    parameter_offload.DeepSpeedZeRoOffload: (
        "partition_all_parameters",
        "fwd_pre_hook",
        "forward_hooks",
        "backward_hooks",
    ),
    partition_parameters: ("ds_tensor", "ds_numel", "ds_shape", "all_gather", "partition"),
    partition_parameters.InsertPostInitMethodToModuleSubClasses: ("_enable_mem_efficient_linear",),
    deepspeed.runtime.engine.DeepSpeedEngine: (
        "set_gradient_accumulation_boundary",
        "zero_optimization_stage",
        "destroy",
        "_backward_epilogue",
    ),
}


@pytest.mark.parametrize(("where", "name"), [(where, name) for where, names in USED.items() for name in names])
def test_it_is_still_there(where: type, name: str) -> None:
    message = (
        f"DeepSpeed {deepspeed.__version__} has moved {where.__name__}.{name}: "
        "see launch/strategies/deepspeed_internals.py"
    )
    assert name in inspect.getsource(where), message


@pytest.mark.parametrize("optimizer", [FLAT, PARTITIONED])
def test_a_backward_can_be_prepared(optimizer: type) -> None:
    message = f"DeepSpeed {deepspeed.__version__} has no clear_backward_seen_flag: see prepare_backward"
    assert callable(getattr(optimizer, "clear_backward_seen_flag", None)), message


@pytest.mark.parametrize(("optimizer", "norm"), [(FLAT, "scaled_global_norm()"), (PARTITIONED, "_get_norm_groups()")])
def test_a_step_asks_for_the_gradient_norm_and_skips_one_that_is_not_finite(optimizer: type, norm: str) -> None:
    step = source_of(optimizer, "step")
    message = f"DeepSpeed {deepspeed.__version__}'s step no longer goes by self.{norm}: see stepping_by"
    assert f"self.{norm}" in step, message
    assert "is_invalid_grad_norm" in step, message


def test_engine_backward_ends_with_the_epilogue_alone() -> None:
    source = source_of(deepspeed.runtime.engine.DeepSpeedEngine, "backward")
    _, _, after = source.partition("loss.backward(**backward_kwargs)")
    message = f"DeepSpeed {deepspeed.__version__} ends engine.backward otherwise: see finish_backward"
    calls = [line.strip() for line in after.partition("return")[0].splitlines() if line.strip().startswith("self.")]
    assert calls == ["self._backward_epilogue()"], message


def source_of(owner: type, method: str) -> str:
    """A method's source; ``inspect`` would show the decorator's."""
    return inspect.getsource(owner).partition(f"    def {method}(self")[2].partition("\n    def ")[0]


def test_nothing_is_compiled_for_collectives_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    collectives: Any = importlib.import_module("deepspeed.comm.torch")
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    monkeypatch.setattr(deepspeed.ops, "__compatible_ops__", {ShareMemCommBuilder.NAME: True})
    monkeypatch.setattr(ShareMemCommBuilder, "load", lambda *_: pytest.fail("compiles"))
    leave_out_compiled_collective(deepspeed)
    message = f"DeepSpeed {deepspeed.__version__} builds its all-reduce elsewhere: see leave_out_compiled_collective"
    assert collectives.build_shm_op() is None, message
    for room in (deepspeed.runtime.engine, stage_1_and_2, stage3):
        assert "inference_all_reduce" not in inspect.getsource(room)
