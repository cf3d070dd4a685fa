"""What a step has changed on the host, taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loops.progress import _Progress

from lightning_modules.core.step import Now

if TYPE_CHECKING:
    from lightning_modules.core.family import ImageFamily


class HostState:
    """What is on the host before a step is captured, so that a capture that fails leaves no trace.

    A capture computes nothing: what the step has noted until it failed are tensors without numbers.

    Args:
        module: the family.
    """

    def __init__(self, module: ImageFamily) -> None:
        self._module, self._now = module, Now(module._now.steps, stepping=module._now.stepping)
        self._counted = self._steps_of_optimizers.state_dict()
        self._attributes = [
            (vars(part), {key: (value, _contents(value)) for key, value in vars(part).items()})
            for part in module.modules()
        ]

    @property
    def _steps_of_optimizers(self) -> _Progress:
        return self._module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress

    def restore(self) -> None:
        """Makes it what it was."""
        for attributes, before in self._attributes:
            for key in attributes.keys() - before.keys():
                del attributes[key]
            for key, (value, contents) in before.items():
                attributes[key] = value
                if isinstance(value, list):
                    value[:] = contents
                elif isinstance(value, dict):
                    value.clear()
                    value.update(contents)
        module = self._module
        module._now = self._now
        self._steps_of_optimizers.load_state_dict(self._counted)
        for name in module.trained_networks:
            for parameter in module.parameters_of(name):
                parameter.grad = None
        # It holds casts of weights that were not computed either.
        torch.clear_autocast_cache()


def _contents(value: object) -> Any:  # type: ignore[explicit-any] # of any list or dictionary
    return list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else None
