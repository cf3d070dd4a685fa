"""bf16 where the processor has it, fp32 where it would only be emulated."""

from __future__ import annotations

import pytest
import torch

from launch.training.hardware import affordable_precision


@pytest.mark.parametrize("has", [True, False])
def test_bf16_needs_instructions_on_a_cpu(
    has: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)
    assert affordable_precision("bf16-mixed", "cpu") == ("bf16-mixed" if has else "32-true")
    assert ("no bf16 instructions" in capsys.readouterr().err) == (not has)
    assert affordable_precision("16-mixed", "cpu") == "16-mixed"
    assert affordable_precision("bf16-mixed", "cuda") == "bf16-mixed"
