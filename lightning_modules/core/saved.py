"""Conversions between a family's state and a checkpoint, which is the same for every strategy."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from lightning_modules.core.options import changes, constructor_options, with_new_names

#: A checkpoint as Lightning's hooks have it: plain data and tensors, nested.
Checkpoint = dict[str, Any]  # type: ignore[explicit-any] # Lightning's own type

#: Key of a checkpoint's moving averages: ``{name of the average: {name of the tensor: whole fp32 tensor}}``.
AVERAGES = "averages"

#: Options of a network that change neither its function at the end nor what its weights mean.
FREE = {
    "dropout",
    "gradient_checkpointing",
    "half_resolutions",
    "magnitude_half_life_kimg",
    # A rank's micro-batch must be a multiple of it: fewer images a rank may need smaller groups.
    "minibatch_group",
    "w_avg_beta",
}


def saved_averages(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's moving averages, by name and by the tensors' names in the module; {} if it has none."""
    return checkpoint.get(AVERAGES, {})


def upgraded(checkpoint: Checkpoint) -> Checkpoint:
    """Converts a checkpoint of any earlier version to the present format.

    Until version 0.2 there was one average, saved by a callback.
    """
    callbacks = checkpoint.get("callbacks")
    if isinstance(callbacks, dict) and "average" in (callbacks.get("EMA") or {}):
        rest = {name: state for name, state in callbacks.items() if name != "EMA"}
        averages = {"ema": callbacks["EMA"]["average"], **saved_averages(checkpoint)}
        checkpoint = {**checkpoint, "callbacks": rest, AVERAGES: averages}
    return checkpoint


def parameter_names(network: Module, optimizer: Optimizer) -> list[str]:
    """Names of the network's parameters in the optimizer's order."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def named_state(state: StateDict, names: list[str]) -> StateDict:
    """Converts an optimizer's state dict to one with parameters by name, which does not depend on their order."""
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[number]: entry for number, entry in state["state"].items()}, "param_groups": groups}


def numbered_state(
    saved: StateDict, optimizer: Optimizer, names: list[str], memory_format: torch.memory_format
) -> StateDict:
    """The inverse of ``named_state``, with the options (learning rates ...) of a fresh ``optimizer``.

    Raises:
        ValueError: the saved optimizer has other parameter groups.
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if [len(group["params"]) for group in saved["param_groups"]] != sizes:
        raise ValueError(
            f"the checkpoint's optimizer is of another kind than {type(optimizer).__name__}, "
            "which the config asks for: go on with the run's own config.yaml"
        )
    groups = [
        {**theirs, **ours}
        for theirs, ours in zip(saved["param_groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    entries = {
        names.index(name): {key: _laid_out(value, memory_format) for key, value in entry.items()}
        for name, entry in saved["state"].items()
    }
    return {"state": entries, "param_groups": groups}


def _laid_out(value: object, memory_format: torch.memory_format) -> object:
    # Fused optimizers need moments in the weights' memory format; a checkpoint holds contiguous ones.
    if isinstance(value, Tensor) and value.dim() == 4:
        return value.contiguous(memory_format=memory_format)
    return value


def check_checkpoint(module: L.LightningModule, checkpoint: Checkpoint) -> None:
    """Checks that a checkpoint is of the module's family and architecture.

    Raises:
        ValueError: it is not, or an option that decides what the weights mean has changed; one line.
    """
    family, own = checkpoint.get("gesso", {}).get("family"), type(module).__name__
    if family is None:
        raise ValueError("not a gesso checkpoint (it names no family)")
    if family != own:
        raise ValueError(f"the checkpoint holds a {family}, the config asks for a {own}: use the run's own config.yaml")
    theirs, ours = checkpoint["state_dict"], module.state_dict()
    renamed = getattr(type(module), "renamed_options", {})
    saved, _ = with_new_names(checkpoint.get("hyper_parameters", {}), renamed)
    changed = changes(saved, constructor_options(module.hparams))
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the checkpoint holds another architecture of {own} ({name} is {shapes[0]} there, {shapes[1]} here"
                f"{'; changed: ' + ', '.join(changed) if changed else ''}): use the run's own config.yaml"
            )
    if fixed := [change for change in changed if _is_fixed(change.partition(":")[0], module)]:
        raise ValueError(
            f"the checkpoint's weights mean something else with other options ({', '.join(fixed)}): leave them as they "
            "are in the run's own config.yaml, or begin a new run"
        )


def _is_fixed(option: str, module: L.LightningModule) -> bool:
    """Whether a dotted option belongs to ``ImageFamily.fixed_options``."""
    fixed: tuple[str, ...] = getattr(type(module), "fixed_options", ())
    named = any(option == name or option.startswith(f"{name}.") for name in fixed)
    return named and option.rpartition(".")[2] not in FREE
