"""DeepSpeed still is where `launch/strategies/deepspeed_internals.py` looks for it."""

from __future__ import annotations

import inspect
import os

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")
deepspeed = pytest.importorskip("deepspeed")

from deepspeed.runtime.zero import parameter_offload, partition_parameters, stage3, stage_1_and_2  # noqa: E402

FLAT, PARTITIONED = stage_1_and_2.DeepSpeedZeroOptimizer, stage3.DeepSpeedZeroOptimizer_Stage3
#: Where: what is used there.
USED = {
    FLAT: ("single_partition_of_fp32_groups", "partition_size", "round_robin_bit16_groups", "overflow", "loss_scaler"),
    PARTITIONED: ("fp16_groups", "fp32_partitioned_groups_flat", "overflow", "loss_scaler", "parameter_offload"),
    parameter_offload.DeepSpeedZeRoOffload: (
        "partition_all_parameters",
        "fwd_pre_hook",
        "forward_hooks",
        "backward_hooks",
    ),
    partition_parameters: ("ds_tensor", "ds_numel", "ds_shape", "all_gather", "partition"),
    deepspeed.runtime.engine.DeepSpeedEngine: (
        "set_gradient_accumulation_boundary",
        "zero_optimization_stage",
        "destroy",
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
