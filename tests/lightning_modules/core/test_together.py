"""Networks that are updated together: against one network that holds both, and none of them steps where one cannot."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from launch.planning import footprint
from tests.cycle import Cycle
from tests.lightning_modules.core.test_family import batches, train


def trained(tmp_path: Path, *, steps: int = 4, plugins: Any = None, **options: Any) -> Cycle:
    torch.manual_seed(0)
    module = Cycle(**options)
    train(module, batches(steps), tmp_path, plugins=plugins)
    return module


def fp16() -> list[MixedPrecision]:
    return [MixedPrecision("16-mixed", "cpu")]


def weights(module: Cycle, *names: str) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for name in names for key, value in getattr(module, name).state_dict().items()}


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_two_networks_updated_together_equal_one_that_holds_both(micro_batches: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = Cycle()
    two = trained(tmp_path, micro_batches=micro_batches)
    one = trained(tmp_path, micro_batches=micro_batches, whole=True)
    for name, value in weights(two, "ab", "ba", "critic").items():
        assert torch.equal(value, one.state_dict()[name]), name
        assert not torch.equal(value, before.state_dict()[name]), name
    assert {"ab+ba/loss", "ab+ba/cycle", "critic/loss"} <= two.pop_mean_losses().keys()


def test_each_network_is_clipped_by_itself(tmp_path: Path) -> None:
    norms: dict[str, float] = {}

    class Spy(Cycle):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            super().on_before_optimizer_step(optimizer)
            gradients = [p.grad.flatten() for p in getattr(self, self.stepping).parameters()]
            norms[self.stepping] = torch.linalg.vector_norm(torch.cat(gradients)).item()

    train(Spy(gradient_clip_norm=1e-5), batches(1), tmp_path)
    assert norms == pytest.approx(dict.fromkeys(("ab", "ba", "critic"), 1e-5), rel=1e-2)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.slow
def test_none_steps_where_one_gradient_is_not_finite(
    precision: str, clip: float | None, fused: bool, tmp_path: Path
) -> None:
    after: dict[int, dict[str, torch.Tensor]] = {}

    class Watched(Cycle):
        def optimizers_by_network(self) -> dict[str, torch.optim.Optimizer]:
            return {
                name: torch.optim.Adam(getattr(self, name).parameters(), lr=1e-3, fused=fused)
                for name in ("ab", "ba", "critic")
            }

        def step(self, batch: Any) -> None:
            super().step(batch)
            after[self.steps_done] = copy.deepcopy(weights(self, "ab", "ba"))

    torch.manual_seed(0)
    module = Watched(burst=1, gradient_clip_norm=clip)
    train(module, batches(3), tmp_path, plugins=fp16() if precision == "16-mixed" else None)
    assert module.skips.totals() == {"ab": 1, "ba": 1, "critic": 0}
    for name, value in after[1].items():
        assert torch.equal(value, after[0][name]), name
        assert not torch.equal(value, after[2][name]), name
    for network in ("ab", "ba"):
        steps = {int(state["step"]) for state in module.optimizer_of(network).state.values()}
        assert steps == {2}


def test_a_loss_that_is_not_finite_skips_both(tmp_path: Path) -> None:
    ready = batches(3)
    ready[1]["image"][0] = torch.inf
    torch.manual_seed(0)
    module = Cycle()
    train(module, ready, tmp_path)
    assert module.skips.totals() == {"ab": 1, "ba": 1, "critic": 1}
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_one_loss_scale_serves_a_common_backward(tmp_path: Path) -> None:
    """The critic's own scale stays; those of the two that were apart come together, at the smaller one."""
    plugins = fp16()
    scales: list[dict[str, float]] = []

    class Apart(Cycle):
        def step(self, batch: Any) -> None:
            plugin: Any = self.trainer.strategy.precision_plugin
            if self.steps_done == 0:
                plugin._of("ba").scale(torch.ones(()))
                plugin._of("ba").update(2.0**10)
            super().step(batch)
            scales.append({name: scaler.get_scale() for name, scaler in plugin.scalers.items()})

    torch.manual_seed(0)
    module = Apart(burst=1)
    train(module, batches(3), tmp_path, plugins=plugins)
    assert scales[0] == {"ab": 2.0**10, "ba": 2.0**10, "critic": 2.0**16}
    assert scales[1] == scales[2] == {"ab": 2.0**9, "ba": 2.0**9, "critic": 2.0**16}


@pytest.mark.parametrize("names", [(), ("ab", "ab"), ("ab", "lens"), "lens"])
def test_names_of_an_update_are_checked(names: Any, tmp_path: Path) -> None:
    class Wrong(Cycle):
        def step(self, batch: Any) -> None:
            self.update(names, self.losses, batch)

    with pytest.raises(ValueError, match="name one or more of the networks that have an optimizer.*ab, ba, critic"):
        train(Wrong(), batches(1), tmp_path)


@pytest.mark.slow
def test_a_plan_gives_each_of_them_what_their_common_update_needs() -> None:
    needs = footprint.activations(Cycle(), 4, autocast=False)
    assert needs.keys() == {"ab", "ba", "critic"}
    assert needs["ab"] == needs["ba"] > needs["critic"] > 0
