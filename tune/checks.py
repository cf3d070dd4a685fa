"""Checks of a sweep before its first trial starts; each error is one line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gesso.common.ranges import SEEDS
from gesso.common.text import one_line
from lightning_modules.metrics import specs
from lightning_modules.metrics.specs import Direction
from tune.choices import SPEED
from tune.space import Space
from tune.sweep import Objective, Placement, Sweep

if TYPE_CHECKING:
    from launch.training.lightning_cli import GessoCLI
    from launch.training.training import Training

#: Options that the sweep itself sets.
OWN = ("run.", "checkpoints.", "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "evaluation.every_kimg")


def check_space(training: Training, space: Space) -> None:
    """Checks values of every dimension against the types of the recipe's options.

    Raises:
        ValueError: the recipe has no such option, or the option does not take these values.
    """
    training.parse()
    for dimension in space:
        if dimension.name.startswith(OWN):
            raise ValueError(f"space: {dimension.name}: the sweep itself decides this one")
        if "." not in dimension.name and dimension.name != "seed_everything":
            raise ValueError(f"space: {dimension.name}: name one option, such as model.latent_dim")
        conditions = {name: values[0] for name, values in dimension.when.items()}
        for value in dimension.probes():
            try:
                training.changed({**conditions, dimension.name: value}).parse()
            except ValueError as error:
                raise ValueError(f"space: {dimension.name}: {dimension.text} does not fit: {error}") from error


def check_values(training: Training, space: Space) -> None:
    """Builds the training at two corners of the space, since constructors check more than types.

    Raises:
        ValueError: one cannot be built.
    """
    from launch.training.dry_build import check, dry_build

    for corner in (0, -1):
        drawn = space.active({dimension.name: dimension.probes()[corner] for dimension in space})
        try:
            check(dry_build(training.changed(drawn)))
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
            # Whatever a constructor makes of such values, they are what is wrong: the recipe itself has been built.
            values = ", ".join(f"{name} {value}" for name, value in drawn.items())
            raise ValueError(f"space: with {values}: {one_line(error)}") from error


def find_objectives(metrics: Sequence[str], modes: Sequence[Direction | None], cli: GessoCLI) -> tuple[Objective, ...]:
    """The objectives with the full names of their metrics: ``fid`` becomes ``fid/mobilenet_v2``.

    Args:
        metrics: as they were asked for.
        modes: whether less or more of each is better; None: the metric's own direction.
        cli: the training.

    Raises:
        ValueError: a metric that is never logged, or a mode that contradicts it.
    """
    if twice := next((metric for metric in metrics if list(metrics).count(metric) > 1), None):
        raise ValueError(f"--metric {twice} is there twice")
    directions = measured(cli)
    known = [*directions, SPEED]
    short = {name.partition("/")[0]: name for name in reversed(known) if not name.startswith("val/")}
    found = []
    for metric, mode in zip(metrics, modes, strict=True):
        name = metric if metric in known else short.get(metric)
        if name is None:
            close = difflib.get_close_matches(metric, known, n=1, cutoff=0.7)
            hint = f"did you mean {close[0]}?" if close else f"this recipe measures {', '.join(known)}"
            why = " (training losses change with the weights that are swept)" * metric.startswith("loss/")
            raise ValueError(f"--metric {metric} is never logged{why}; {hint}")
        found.append(Objective(name, specs.better(name, mode, option="--mode", known=directions)))
    return tuple(found)


def measured(cli: GessoCLI) -> dict[str, Direction | None]:
    """Names of all metrics that this training measures in validation, and which way is better; None: not known."""
    import torch

    from launch.callbacks.evaluation import Evaluation
    from launch.callbacks.lookup import find
    from launch.evaluation.references import held_out

    evaluation = find(cli.trainer, Evaluation)
    names = evaluation.names(cli.model) if evaluation else {}
    data: Any = cli.datamodule
    model: Any = cli.model
    # What a family measures on held-out images, it says by measuring: two of them are enough.
    with torch.no_grad():
        losses = model.held_out_losses(held_out(data, 2, torch.device("cpu")))
    return {**names, **{f"val/{name}": None for name in losses}}


def check_sweep(sweep: Sweep, space: Space) -> None:
    """Checks that search, scheduler, lengths and placement of a sweep fit together.

    Raises:
        ValueError: they do not; one line that names the option.
    """
    if sweep.num_samples < 1:
        raise ValueError(f"--num-samples {sweep.num_samples}: must be 1 or more")
    if sweep.concurrent is not None and sweep.concurrent < 1:
        raise ValueError(f"--concurrent {sweep.concurrent}: must be 1 or more; leave it out for as many as fit")
    if sweep.seed not in SEEDS:
        raise ValueError(f"--seed {sweep.seed}: must be {SEEDS}")
    several = len(sweep.objectives) > 1
    if several and sweep.scheduler != "none":
        raise ValueError(f"--scheduler {sweep.scheduler} ranks trials by one metric: leave it or the others out")
    if several and sweep.search != "tpe":
        raise ValueError("several objectives need --search tpe, which looks for their Pareto front")
    if sweep.search == "tpe":
        if sweep.population:
            raise ValueError(f"--scheduler {sweep.scheduler} looks for better values by itself: leave out --search tpe")
        for dimension in space:
            if dimension.is_grid or dimension.text.startswith(("randn", "qrandn")):
                kind = dimension.text.partition("(")[0]
                raise ValueError(f"space: {dimension.name}: TPE takes no {kind}; use a range or choice")
            if any(isinstance(value, list | dict) for value in dimension.values):
                raise ValueError(f"space: {dimension.name}: TPE takes no lists as values; leave out --search tpe")
    if sweep.kimg < sweep.every_kimg:
        raise ValueError(
            f"a trial of {sweep.kimg:g} kimg never comes to its first evaluation, at {sweep.every_kimg:g}: set "
            "--evaluation.every_kimg or --run.kimg"
        )
    _check_scheduler(sweep, space)
    placement = sweep.placement
    if placement.ranks < 1 or not 0 < placement.cpus < math.inf or not 0 <= placement.gpus < math.inf:
        raise ValueError("--ranks-per-trial must be 1 or more, --cpus-per-trial more than 0, --gpus-per-trial not less")
    if placement.ranks > 1 and placement.gpus not in (0, 1):
        raise ValueError("a trial of several ranks has one GPU for each: --gpus-per-trial is 0, or as many as ranks")


def _check_scheduler(sweep: Sweep, space: Space) -> None:
    if sweep.scheduler in ("asha", "median"):
        if not sweep.every_kimg <= sweep.grace_kimg <= sweep.kimg:
            raise ValueError(
                f"--grace-kimg {sweep.grace_kimg:g}: trials can be compared between their first evaluation, at "
                f"{sweep.every_kimg:g}, and their end, at {sweep.kimg:g}: set --evaluation.every_kimg lower"
            )
        if not 1 < sweep.reduction < math.inf:
            raise ValueError(f"--reduction {sweep.reduction:g}: must be more than 1")
    if sweep.population:
        if not sweep.every_kimg <= sweep.perturb_kimg < sweep.kimg:
            raise ValueError(
                f"--perturb-kimg {sweep.perturb_kimg:g}: must be no less than the interval of evaluations, "
                f"{sweep.every_kimg:g}, and less than a trial's length, {sweep.kimg:g}"
            )
        if sweep.num_samples < 4:
            raise ValueError(f"--num-samples {sweep.num_samples}: a population has 4 trials or more")
        if not any(dimension.mutate for dimension in space):
            raise ValueError(f"space: {sweep.scheduler} may change nothing: every option says `mutate: false`")
    if sweep.scheduler == "pb2":
        for dimension in space:
            if dimension.mutate and dimension.bounds is None:
                raise ValueError(f"space: {dimension.name}: PB2 changes ranges alone; say `mutate: false`, or use pbt")


def check_room(placement: Placement, nodes: Sequence[dict[str, float]]) -> None:
    """Checks that the cluster has room for one trial, which would wait for ever otherwise.

    Args:
        placement: the resources of a trial.
        nodes: the resources of each node, by Ray's names.

    Raises:
        ValueError: it has not.
    """
    bundle = placement.bundles()[0]
    places = sum(min(int(node.get(kind, 0) / amount) for kind, amount in bundle.items()) for node in nodes)
    if places < placement.ranks:
        needs = " and ".join(f"{amount:g} {kind}" for kind, amount in bundle.items())
        has = "; ".join(" and ".join(f"{node.get(kind, 0):g} {kind}" for kind in bundle) for node in nodes)
        ranks = f"{placement.ranks} times " if placement.ranks > 1 else ""
        raise ValueError(f"no room for a trial: it needs {ranks}{needs}, and there is {has} (node by node)")
