"""`gesso checkpoint show|verify|export`: what is inside, whether it is whole, and the weights for somewhere else."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gesso.common.text import binary_size


def add_parser(verbs: Any) -> None:
    """Registers the verb."""
    parser = verbs.add_parser("checkpoint", help="show, verify or export a checkpoint")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = argparse.ArgumentParser(add_help=False)
    path.add_argument("path", metavar="RUN_OR_CHECKPOINT", help="a checkpoint, or a run for its last one")
    for name, what, run in (
        ("show", "what is inside", show),
        ("verify", "compare every file with its checksum", check),
        ("export", "write the picture-making networks as one safetensors file, and the config beside it", export),
    ):
        action = actions.add_parser(name, help=what, description=what, parents=[path])
        action.set_defaults(run=run)
        if name == "export":
            action.add_argument("out", type=Path, metavar="OUT.safetensors")
            action.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")


def show(arguments: argparse.Namespace) -> int:
    """Prints a checkpoint's content, without its numbers."""
    from launch.checkpoints import files, layout
    from launch.runs.folder import find_checkpoint

    path = find_checkpoint(arguments.path).resolve()
    with files.older_one_named(path):
        lines = summary(layout.read(path))
    for line in lines:
        print(line)
    print("\nfiles")
    for file in sorted(path.iterdir()):
        print(f"  {file.name:26} {binary_size(file.stat().st_size):>10}")
    return 0


def summary(checkpoint: dict[str, Any]) -> list[str]:
    """Lines for people about a checkpoint as ``layout.read`` returns it.

    Raises:
        ValueError: it is no gesso training's.
    """
    from lightning_modules.core.saved import saved_averages

    gesso, run = checkpoint.get("gesso"), checkpoint.get("run") or {}
    if not isinstance(gesso, dict) or "images_seen" not in gesso:
        raise ValueError("not a gesso checkpoint (it names no family)")
    position = next((v["position"] for v in checkpoint.values() if isinstance(v, dict) and "position" in v), None)
    facts = {
        "family": gesso["family"],
        "images seen": f"{gesso['images_seen']:,} in {gesso['steps_done']:,} steps",
        "stream": position,
        "run": run.get("name"),
        "saved by": f"{run.get('strategy')}, {run.get('world_size')} ranks, precision {run.get('precision')}",
        "W&B id": run.get("wandb_id"),
        "versions": ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items()) or None,
    }
    lines = [f"{name:12} {value}" for name, value in facts.items() if value is not None]
    averages = saved_averages(checkpoint)
    lines += ["", f"{'network':16} {'numbers':>14} {'weights':>10} {'EMA':>10} {'optimizer':>10}  learning rate"]
    weights: dict[str, Any] = checkpoint["state_dict"]
    for network in dict.fromkeys(name.partition(".")[0] for name in weights):
        own = [tensor for name, tensor in weights.items() if name.startswith(f"{network}.")]
        means = [t for average in averages.values() for name, t in average.items() if name.startswith(f"{network}.")]
        optimizer = checkpoint.get("optimizer_states", {}).get(network, {"state": {}, "param_groups": []})
        moments = [v for entry in optimizer["state"].values() for v in entry.values() if hasattr(v, "nbytes")]
        rates = ", ".join(f"{group['lr']:g}" for group in optimizer["param_groups"] if "lr" in group)
        parts = (sum(t.nbytes for t in part) if part else None for part in (own, means, moments))
        sizes = " ".join(f"{binary_size(part):>10}" for part in parts)
        lines.append(f"{network:16} {sum(t.numel() for t in own):14,} {sizes}  {rates}")
    return lines


def check(arguments: argparse.Namespace) -> int:
    """Says that a checkpoint is whole, or raises what is wrong with it."""
    from launch.checkpoints import files, layout
    from launch.runs.folder import find_checkpoint

    path = find_checkpoint(arguments.path)
    with files.older_one_named(path):
        summary(layout.read(path))
        found = files.verify(path)
    print(f"{path}: whole; {len(found)} files, {binary_size(sum(file['bytes'] for file in found.values()))}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Writes one safetensors file and its config."""
    from launch.checkpoints.export import export as write
    from launch.inference.loading import load_family

    module, origin = load_family(arguments.path, average=not arguments.raw)
    kind = "average" if origin["average"] else "raw"
    about = {"family": type(module).__name__, "images_seen": origin["images_seen"], "weights": kind}
    # Only `gesso export` asks for it.
    licence = {"licence": arguments.licence} if "licence" in arguments else {}
    config = write(module, arguments.out, origin={**about, **licence})
    print(f"{arguments.out}: the {kind} weights of {', '.join(module.generating_networks())}; config: {config}")
    return 0
