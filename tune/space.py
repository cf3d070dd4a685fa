"""The space of a sweep: a YAML file that maps options of a recipe to Ray Tune's distributions.

::

    model.style_weight: loguniform(1e-1, 1e3)
    model.loss: [hinge, non_saturating]             # the same as choice([...])
    model.r1_gamma:
      sample: loguniform(1e-2, 1e2)
      when: {model.loss: [hinge]}                   # otherwise the recipe's value is used
    model.generator.width:
      sample: choice([32, 64])
      mutate: false                                 # PBT and PB2 do not change it
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gesso.common.extras import needing
from gesso.common.strict_yaml import read_yaml
from gesso.common.text import one_line
from launch.training.recipes import described, resolve

with needing("tune"):
    from ray import tune
    from ray.tune.search.sample import Integer

SPACES = Path(__file__).parent / "spaces"

#: Name of each distribution -> how it is written.
DISTRIBUTIONS = {
    "uniform": "uniform(LOW, HIGH)",
    "quniform": "quniform(LOW, HIGH, STEP)",
    "loguniform": "loguniform(LOW, HIGH)",
    "qloguniform": "qloguniform(LOW, HIGH, STEP)",
    "randn": "randn(MEAN, STD)",
    "qrandn": "qrandn(MEAN, STD, STEP)",
    "randint": "randint(LOW, ABOVE)",
    "qrandint": "qrandint(LOW, HIGH, STEP)",
    "lograndint": "lograndint(LOW, ABOVE)",
    "qlograndint": "qlograndint(LOW, HIGH, STEP)",
    "choice": "choice([VALUE, ...])",
    "grid": "grid([VALUE, ...])",
}


@dataclass(frozen=True)
class Dimension:
    """One option of the recipe and its distribution.

    Args:
        name: the option, as on the command line without dashes: ``model.style_weight``.
        text: the distribution as it was written.
        domain: Ray Tune's object for it.
        values: all values of a ``choice`` or ``grid``; () for a range.
        bounds: lowest and highest value of a range; None for a ``choice`` and for unbounded distributions.
        log: whether it is drawn on a logarithmic scale.
        when: other options -> the values that they must have for this one to have an effect.
        mutate: whether PBT and PB2 may change it while a trial trains.
    """

    name: str
    text: str
    domain: Any
    values: tuple[Any, ...] = ()
    bounds: tuple[float, float] | None = None
    log: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    mutate: bool = True

    @property
    def is_grid(self) -> bool:
        return self.text.startswith("grid")

    def probes(self) -> tuple[Any, ...]:
        """Test values, to check whether the recipe accepts all values that may be drawn."""
        if self.values:
            return self.values
        if self.bounds is None:
            return (self.domain.sample(),)
        low, high = self.bounds
        if isinstance(self.domain, Integer):
            return int(low), int(high)
        # Drawn values are seldom round: a float between is what an integer option must refuse.
        return low, low + (high - low) * 0.382, high


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep."""

    dimensions: tuple[Dimension, ...]

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def __getitem__(self, name: str) -> Dimension:
        return next(dimension for dimension in self.dimensions if dimension.name == name)

    def domains(self) -> dict[str, Any]:
        """Tune's ``param_space``."""
        return {dimension.name: dimension.domain for dimension in self.dimensions}

    def active(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The overrides of a drawn configuration: without the options whose condition does not hold."""
        kept: dict[str, Any] = {}
        for dimension in self.dimensions:
            # A condition on an option that is itself without effect does not hold.
            if all(name in kept and kept[name] in values for name, values in dimension.when.items()):
                kept[dimension.name] = config[dimension.name]
        return kept


def spaces() -> dict[str, str]:
    """Name of each packaged space -> what it varies."""
    return described(SPACES)


def find_space(name: str) -> Path:
    """The file of a space, given by path or by the name of a packaged space.

    Raises:
        FileNotFoundError: neither.
    """
    return resolve(name, {"gesso": SPACES}, kind="ready space", listing="gesso tune --list-spaces")


def read_space(file: Path) -> Space:
    """Reads a space.

    Raises:
        ValueError: the file is malformed; one line that names the option and how it is written.
    """
    content = read_yaml(file)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{file}: write one option to a line, such as `model.optimizer.lr: loguniform(1e-5, 1e-3)`")
    dimensions: list[Dimension] = []
    for name, entry in content.items():
        try:
            dimension = _dimension(str(name), entry)
            _check_condition(dimension, dimensions)
        except ValueError as error:
            raise ValueError(f"{file}: {name}: {error}") from error
        dimensions.append(dimension)
    return Space(tuple(dimensions))


def _dimension(name: str, entry: Any) -> Dimension:
    if not isinstance(entry, dict):
        entry = {"sample": entry}
    if unknown := entry.keys() - {"sample", "when", "mutate"} or {"sample"} - entry.keys():
        names = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"{names}: an option has `sample`, and maybe `when` and `mutate`")
    when = entry.get("when") or {}
    if not isinstance(when, dict):
        raise ValueError("`when` maps options to values, such as {model.loss: [hinge]}")
    conditions = {str(o): tuple(v) if isinstance(v, list) else (v,) for o, v in when.items()}
    if not isinstance(mutate := entry.get("mutate", True), bool):
        raise ValueError("`mutate` is true or false")
    sample = entry["sample"]
    if isinstance(sample, list):
        sample = f"choice({sample!r})"
    return _drawn(name, str(sample), when=conditions, mutate=mutate)


def _check_condition(dimension: Dimension, before: Sequence[Dimension]) -> None:
    for name, values in dimension.when.items():
        other = next((known for known in before if known.name == name), None)
        if other is None:
            raise ValueError(f"`when` asks for {name}, which must be an option of the space above this one")
        if other.values and (missing := [value for value in values if value not in other.values]):
            raise ValueError(f"`when` asks for {name} to be {missing[0]!r}, which is never drawn")


def _drawn(name: str, text: str, **more: Any) -> Dimension:
    kind, arguments = _parse(text)
    written = DISTRIBUTIONS[kind]
    if kind in ("choice", "grid"):
        if len(arguments) != 1 or not isinstance(arguments[0], list) or not arguments[0]:
            raise ValueError(f"{text}: write {written}")
        values = arguments[0]
        written_values = [repr(value) for value in values]
        if twice := next((value for value in written_values if written_values.count(value) > 1), None):
            raise ValueError(f"{text}: the value {twice} is there twice")
        domain = tune.grid_search(values) if kind == "grid" else tune.choice(values)
        return Dimension(name, text, domain, values=tuple(values), **more)
    if len(arguments) != written.count(",") + 1 or not all(_is_number(value) for value in arguments):
        raise ValueError(f"{text}: write {written}, in numbers")
    integer = kind.endswith("randint")
    if integer and not all(float(value).is_integer() for value in arguments):
        raise ValueError(f"{text}: write {written}, in whole numbers")
    numbers = [int(value) if integer else float(value) for value in arguments]
    if kind.endswith("randn"):
        if not all(number > 0 for number in numbers[1:]):
            raise ValueError(f"{text}: the standard deviation and the step must be more than 0")
        return Dimension(name, text, getattr(tune, kind)(*numbers), **more)
    low, high = numbers[:2]
    if low >= high or ("log" in kind and low <= 0):
        raise ValueError(f"{text}: the lower bound must be {'more than 0 and ' * ('log' in kind)}less than the upper")
    if kind.startswith("q") and numbers[2] <= 0:
        raise ValueError(f"{text}: the step must be more than 0")
    try:
        domain = getattr(tune, kind)(*numbers)
        # A range may hold no multiple of its step, which is known when a value is drawn; from a generator of its own,
        # for what schedulers draw from the common one depends on the sweep's seed alone.
        domain.sample(random_state=0)
    except ValueError as error:
        raise ValueError(f"{text}: {one_line(error)}") from error
    # Of Tune's integer ranges only the quantised ones hold their upper bound.
    bounds = (low, high - 1) if integer and not kind.startswith("q") else (low, high)
    return Dimension(name, text, domain, bounds=bounds, log="log" in kind, **more)


def _parse(text: str) -> tuple[str, list[Any]]:
    """Splits ``loguniform(1e-4, 1)`` into name and arguments, which must be literals: nothing is executed."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
            raise ValueError
        kind, arguments = call.func.id, [ast.literal_eval(value) for value in call.args]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text}: write a distribution, such as loguniform(1e-4, 1) or choice([1, 2])") from None
    if kind not in DISTRIBUTIONS:
        close = difflib.get_close_matches(kind, DISTRIBUTIONS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(DISTRIBUTIONS)}"
        raise ValueError(f"{kind}: no distribution; {hint}")
    return kind, arguments


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
