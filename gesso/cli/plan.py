"""`gesso plan`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from gesso.common.text import binary_size

if TYPE_CHECKING:
    from rich.table import Table

    from launch.planning.memory import Network, Row
    from lightning_modules.core.family import ImageFamily

#: What is assumed of each precision that can be planned for.
PRECISIONS = {
    "32-true": "fp32 throughout",
    "bf16-mixed": "fp32 weights, gradients and optimizer states, activations under bf16 autocast",
    "16-mixed": "fp32 weights, gradients and optimizer states, activations under fp16 autocast",
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "plan",
        help="memory of a training under each strategy, before it is queued",
        usage="gesso plan --config RECIPE [--devices N] [--nodes M] [--memory GIB] [overrides]",
        description="Prints the sizes of a recipe's networks, and what one rank holds of weights, gradients, optimizer "
        "states, moving averages and activations under each strategy. Needs neither a GPU nor the data set. All other "
        "options are overrides of the recipe, as for `gesso fit`.",
    )
    parser.add_argument("--config", action="append", metavar="RECIPE", help="a packaged recipe's name, or a file")
    parser.add_argument("--devices", type=int, metavar="N", help="ranks on each node (default: the recipe's, else 1)")
    parser.add_argument("--nodes", type=int, metavar="M", help="nodes (default: the recipe's, else 1)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="of one device: names the first strategy that fits")
    # gesso.cli.main puts here what no option above takes.
    parser.set_defaults(run=run, overrides=[])


def run(arguments: argparse.Namespace) -> int:
    if not arguments.config:
        raise ValueError("name a recipe: gesso plan --config RECIPE; `gesso recipes` lists them")
    for name in ("devices", "nodes", "memory"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name} {value}: must be more than 0")
    from launch.planning import footprint
    from launch.planning import memory as planning
    from launch.training.family_files import load_all
    from lightning_modules.core.options import constructor_options, paths

    cli = _read(arguments)
    module, trainer = cli.model, cli.config.trainer
    precision = _precision(trainer.precision)
    nodes, devices = trainer.num_nodes, 1 if trainer.devices == "auto" else int(trainer.devices)
    images = planning.images_per_micro_batch(
        cli.datamodule.global_batch_size, ranks=nodes * devices, micro_batches=module.micro_batches
    )
    print(
        f"{type(module).__name__} on {nodes * devices} ranks ({nodes} x {devices}), {images} images at once on each: "
        f"global batch {cli.datamodule.global_batch_size}, micro_batches {module.micro_batches}\n"
        f"assumed: {precision}, that is {PRECISIONS[precision]}\n"
    )
    load_all(module)
    networks = footprint.networks(module, ema=footprint.ema_count(cli.trainer))
    table = planning.rows(
        networks,
        planning.STRATEGIES,
        ranks=nodes * devices,
        micro_batches=module.micro_batches,
        reduce_bucket=_reduce_bucket(cli.trainer.strategy),
    )
    needs = _activations(module, images, autocast=precision != "32-true")
    most = {on: max(by_network.values()) for on, by_network in needs.items()}
    _show_networks(networks, needs)
    _show_ranks(table, most)
    _notes(networks)
    if arguments.memory:
        switches = dict(paths(constructor_options(module.hparams), "gradient_checkpointing"))
        print(_advice(table, most, arguments.memory, switches))
    return 0


def _read(arguments: argparse.Namespace) -> Any:
    from gesso.cli.fit import parse
    from launch.training.dry_build import dry_build

    shape = {"trainer.devices": arguments.devices, "trainer.num_nodes": arguments.nodes}
    given = parse(arguments.overrides)
    training = replace(given, recipe=[*arguments.config, *given.recipes])
    return dry_build(training.changed({name: number for name, number in shape.items() if number}))


def _precision(asked: Any) -> str:
    precision = {"None": "32-true", "32": "32-true"}.get(str(asked), str(asked))
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision}: a plan knows {', '.join(PRECISIONS)}")
    return precision


def _reduce_bucket(strategy: Any) -> int:
    """DeepSpeed's ``reduce_bucket_size`` as this recipe's training would set it."""
    from launch.strategies.zero import MultiNetworkZeRO

    zero = strategy if isinstance(strategy, MultiNetworkZeRO) else MultiNetworkZeRO()
    return int(zero._engine_config(2, clip=None, bf16=False)["zero_optimization"]["reduce_bucket_size"])


def _activations(module: ImageFamily, images: int, *, autocast: bool) -> dict[bool, dict[str, int]]:
    """Bytes by network, without and with gradient checkpointing."""
    from launch.planning import footprint
    from launch.training.family_files import load_all

    found = {}
    for on in (False, True):
        family = footprint.with_checkpointing(module, on)
        if family is None and on:
            continue
        family = family or module
        load_all(family)
        found[on] = footprint.activations(family, images, autocast=autocast)
    return found


def _show_networks(networks: Sequence[Network], needs: dict[bool, dict[str, int]]) -> None:
    table = _table("network", "parameters", "trained", "averages", "activations", "checkpointed")
    for network in networks:
        table.add_row(
            network.name,
            f"{sum(network.numels):,}",
            f"{network.trained:,}",
            str(network.averages or ""),
            *(binary_size(needs.get(on, {}).get(network.name)) for on in (False, True)),
        )
    _print(table)


def _show_ranks(rows: Sequence[Row], activations: dict[bool, int]) -> None:
    columns = ("weights", "masters", "gradients", "optimizer", "EMA", "buffers")
    table = _table("one rank's", *columns, "in all", "checkpointed", "host")
    for row in rows:
        shares = (getattr(row.device, field.name) for field in fields(row.device))
        totals = (row.device.total + activations[on] if on in activations else None for on in (False, True))
        table.add_row(row.strategy.name, *map(binary_size, (*shares, *totals, row.host.total)))
    _print(table)


def _notes(networks: Sequence[Network]) -> None:
    twice = [network.name for network in networks if network.requires_double_backward]
    if twice:
        print(f"{', '.join(twice)}: differentiated twice, so at stage 2 under zero3")
    for refusal in filter(None, (network.zero_refusal for network in networks)):
        print(f"ddp only; {refusal}")
    print(
        "masters: ZeRO's second copy of the weights; buffers: gradients and weights on their way between ranks;\n"
        "in all: with activations, never less than what is held at one moment. Activations were followed through one\n"
        "step of tensors without memory: a GPU's context and its kernels' workspaces, about 1 GiB, come on top."
    )


def _advice(rows: Sequence[Row], activations: dict[bool, int], memory: float, switches: Mapping[str, object]) -> str:
    from launch.planning.memory import GIB, first_that_fits

    on = any(switches.values())
    found = first_that_fits(rows, activations, memory * GIB, checkpointing=on)
    if found is None:
        least = min(rows, key=lambda row: row.device.total)
        needed = least.device.total + min(activations.values())
        return (
            f"nothing fits into {memory:g} GiB; the least is {least.strategy.name} with {binary_size(needed)}: "
            "take more ranks or --model.micro_batches"
        )
    row, checkpointed = found
    options = f"--trainer.strategy {row.strategy.name}"
    options += "".join(f" --model.{path} true" for path in switches) if checkpointed and not on else ""
    total = row.device.total + activations[checkpointed]
    return f"the first that fits into {memory:g} GiB, with {binary_size(total)}: {options}"


def _table(first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    # A table that is piped into a file is not cut at 80 columns.
    Console(width=max(Console().width, 120)).print(table)
    print()
