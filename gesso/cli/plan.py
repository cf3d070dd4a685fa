"""`gesso plan`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from gesso.common.text import binary_size

if TYPE_CHECKING:
    from rich.table import Table

    from launch.planning.memory import Network, Row
    from launch.planning.speed import Update
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
        help="memory and speed of a training under each strategy, before it is queued",
        usage="gesso plan --config RECIPE [--devices N] [--nodes M] [--memory GIB] [--bandwidth GB/S] [overrides]",
        description="Prints the sizes of a recipe's networks, and what one rank holds of weights, gradients, optimizer "
        "states, moving averages and activations under each strategy. Needs neither a GPU nor the data set. With "
        "--bandwidth, also the time of a step and how much of it the ranks wait. All other options are overrides of "
        "the recipe, as for `gesso fit`.",
    )
    parser.add_argument("--config", action="append", metavar="RECIPE", help="a packaged recipe's name, or a file")
    parser.add_argument("--devices", type=int, metavar="N", help="ranks on each node (default: the recipe's, else 1)")
    parser.add_argument("--nodes", type=int, metavar="M", help="nodes (default: the recipe's, else 1)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="of one device: names the first strategy that fits")
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--bandwidth",
        type=float,
        metavar="GB/S",
        help="of a node's network, all its cards together, or on one node between two devices: predicts a step's time",
    )
    speed.add_argument(
        "--step-ms",
        type=float,
        metavar="MS",
        help="milliseconds of a step on one rank with its images (default: measured on this machine)",
    )
    speed.add_argument(
        "--latency-ms",
        type=float,
        default=0.05,
        metavar="MS",
        help="milliseconds of an all-reduce of a few bytes (default: %(default)s)",
    )
    speed.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="of the backward pass, 0 to 1, during which gradients travel (default: as the strategy has it)",
    )
    # gesso.cli.main puts here what no option above takes.
    parser.set_defaults(run=run, overrides=[])


def run(arguments: argparse.Namespace) -> int:
    if not arguments.config:
        raise ValueError("name a recipe: gesso plan --config RECIPE; `gesso recipes` lists them")
    _check(arguments)
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
    if arguments.bandwidth:
        # Last: measuring changes the weights.
        _speed(arguments, cli, networks, ranks=nodes * devices, devices=devices, precision=precision)
    if arguments.memory:
        switches = dict(paths(constructor_options(module.hparams), "gradient_checkpointing"))
        print(_advice(table, most, arguments.memory, switches))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name in ("devices", "nodes", "memory", "bandwidth", "step-ms", "latency-ms"):
        value = getattr(arguments, name.replace("-", "_"))
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} {value}: must be more than 0")
    if arguments.overlap is not None and not 0 <= arguments.overlap <= 1:
        raise ValueError(f"--overlap {arguments.overlap}: is a share, 0 to 1")
    if arguments.bandwidth is None and not (arguments.step_ms is None and arguments.overlap is None):
        raise ValueError("a step's time needs --bandwidth as well, in GB/s")


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


def _speed(
    arguments: argparse.Namespace, cli: Any, networks: Sequence[Network], *, ranks: int, devices: int, precision: str
) -> None:
    """Prints a step's time under each strategy, and what was assumed."""
    from launch.planning import compute
    from launch.planning.memory import STRATEGIES, images_per_micro_batch, rows
    from launch.planning.speed import HOST_BANDWIDTH, OVERLAP, Cluster, predicted

    module, batch = cli.model, cli.datamodule.global_batch_size
    images = images_per_micro_batch(batch, ranks=ranks, micro_batches=module.micro_batches)
    updates = compute.updates(module, images)
    if arguments.step_ms:
        seconds, told = arguments.step_ms / 1e3, "as given"
    else:
        print("measuring a step (--step-ms: what it takes where it will run) ...", flush=True)
        seconds = compute.seconds_of_step(module, batch // ranks, precision=precision)
        told = f"measured here, on {compute.device_name()}"
    cluster = Cluster(ranks, arguments.bandwidth * 1e9, arguments.latency_ms / 1e3)
    # Those that have a row of memory.
    possible = [row.strategy for row in rows(networks, STRATEGIES, ranks=ranks)]
    table = _table("one step", "sent by a rank", "ms compute", "exchange", "hidden", "in all", "images/s", "efficiency")
    for strategy in possible:
        found = predicted(
            strategy,
            networks,
            updates,
            cluster,
            compute=seconds,
            overlap=arguments.overlap,
            micro_batches=module.micro_batches,
        )
        times = (found.compute, found.communication, found.hidden, found.step)
        milliseconds = (f"{1e3 * value:,.2f}" for value in times)
        sent = binary_size(round(found.traffic.sent))
        table.add_row(strategy.name, sent, *milliseconds, f"{batch / found.step:,.0f}", f"{found.efficiency:.1%}")
    _print(table)
    where = "each node's network" if ranks > devices else "the link between two devices"
    own = ", ".join(f"{one.name} {OVERLAP[one.stage]:g}" for one in possible if not one.offload)
    overlap = own if arguments.overlap is None else f"{arguments.overlap:g}"
    print(
        f"compute: of {batch // ranks} images, {told}; spread over the updates by floating-point operations:\n"
        f"{_per_step(updates)}, as in the first steps.\n"
        f"exchange: fp32 numbers in rings through all ranks, slowest in {where}: {arguments.bandwidth:g} GB/s;\n"
        f"{arguments.latency_ms:g} ms for each message; offload: {HOST_BANDWIDTH / 1e9:g} GB/s to the host, whose\n"
        f"optimizer is not counted. hidden: under the backward pass; share of it: {overlap}.\n"
        "efficiency: 100% were ranks that never wait; all are taken to be equally fast. Left out: reading images,\n"
        "evaluation, checkpoints, and what DeepSpeed itself costs the host."
    )


def _per_step(updates: Sequence[Update]) -> str:
    return ", ".join(f"{' and '.join(u.names)} {u.per_step:.3g} times a step" for u in updates)


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
