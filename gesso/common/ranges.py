"""What numbers an option may be: said once, where the option is declared, and checked once, when it is parsed.

::

    def __init__(self, latent_dim: Count = 128, lr: NonNegative = 2e-4, clip: Positive | None = None) -> None: ...

A number that no range is declared for may be any but NaN and the infinities, which no option means.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``.

    Args:
        low: the least one.
        high: the greatest one.
        above: ``low`` itself is none of them.
        below: ``high`` itself is none of them.

    >>> str(Range(0, 1, below=True)), 1.0 in Range(0, 1, below=True)
    ('0 or more and less than 1', False)
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        # A whole number may be too large for a float.
        if not (isinstance(number, int) or math.isfinite(number)) or not self.low <= number <= self.high:
            return False
        return not (self.above and number == self.low) and not (self.below and number == self.high)

    def __str__(self) -> str:
        parts = []
        if self.low > -math.inf and self.high < math.inf and not self.above and not self.below:
            return f"from {_figure(self.low)} to {_figure(self.high)}"
        if self.low > -math.inf:
            parts.append(f"more than {_figure(self.low)}" if self.above else f"{_figure(self.low)} or more")
        if self.high < math.inf:
            parts.append(f"less than {_figure(self.high)}" if self.below else f"{_figure(self.high)} or less")
        return " and ".join(parts) or "a finite number"


def _figure(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:.10g}"


#: Seeds of random numbers: 63 bits, which every generator takes.
SEEDS = Range(0, 2**63 - 1)
Seed = Annotated[int, SEEDS]
#: At least one of something.
Count = Annotated[int, Range(1)]
#: None of something, or more.
Whole = Annotated[int, Range(0)]
#: Such as an interval.
Positive = Annotated[float, Range(0, above=True)]
#: Such as the weight of a loss.
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
#: How much of a running mean stays at each step.
Decay = Annotated[float, Range(0, 1, below=True)]


def check_options(kind: type, options: Mapping[str, object], prefix: str = "") -> None:
    """Checks the numbers among the options of a class.

    Args:
        kind: the class, or dataclass, that is built out of them.
        options: by name; dataclasses, or dictionaries of their fields, may be among them.
        prefix: stands before each name in the error: ``model.``.

    Raises:
        ValueError: a number out of its range; names the option.
    """
    declared = declarations(kind)
    for name, value in options.items():
        hint, default = declared.get(name, (object, None))
        _check(hint, value, f"{prefix}{name}", default)


@cache
def declarations(kind: type) -> dict[str, tuple[object, object]]:
    """Type and default of each option of a class, its base classes' among them."""
    if dataclasses.is_dataclass(kind):
        makers: list[object] = [kind]
    else:
        makers = [vars(base)["__init__"] for base in reversed(kind.__mro__) if "__init__" in vars(base)]
    found: dict[str, tuple[object, object]] = {}
    for maker in makers:
        try:
            hints = get_type_hints(maker, include_extras=True)
            parameters = inspect.signature(maker).parameters  # type: ignore[arg-type]
        except (NameError, TypeError, ValueError):
            # Of a stranger's class: annotations that only a type checker can resolve.
            continue
        found |= {name: (hints.get(name, object), parameter.default) for name, parameter in parameters.items()}
    return found


def group_of(hint: object) -> type | None:
    """The dataclass among the alternatives of a type, if there is one."""
    return next((part for part in _parts(hint) if isinstance(part, type) and dataclasses.is_dataclass(part)), None)


def _check(hint: object, value: object, name: str, default: object = None) -> None:
    group = group_of(hint)
    if group is not None and isinstance(value, bool | int | float | str | list | tuple) and not _beside(hint, value):
        fields = ", ".join(field.name for field in dataclasses.fields(group))
        raise ValueError(f"{name} is {value!r}; it must map options to values: {fields}")
    if value is None:
        _check_none(hint, name, default)
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        _check_number(hint, value, name, default)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        check_options(type(value), vars(value), f"{name}.")
        _check_values(hint, type(value), vars(value), name)
    elif isinstance(value, Mapping):
        declared = declarations(group) if group else {}
        _check_values(hint, group, value, name)
        for key, item in value.items():
            option, usual = declared.get(str(key), (object, None))
            _check(option, item, f"{name}.{key}", usual)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check(_element(hint, number), item, f"{name}[{number}]")


def _beside(hint: object, value: object) -> bool:
    """Whether a number, or a list, is allowed where a dataclass is: ``NonNegative | Schedule``."""
    if isinstance(value, list | tuple):
        return any(get_origin(part) in (list, tuple, Sequence) for part in _parts(hint))
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(_parts(hint, numbers=True))


def _check_values(hint: object, group: object, options: Mapping[str, object], name: str) -> None:
    """Raises a ValueError for a number that a schedule reaches, and the option that it stands for may not be."""
    # It may begin or end at a bound that the number must otherwise stay above.
    reached = [replace(allowed, above=False) for allowed in _ranges(hint)]
    for field in getattr(group, "values", ()) if reached else ():
        value = options.get(field)
        if isinstance(value, int | float) and not any(value in allowed for allowed in reached):
            raise ValueError(f"{name}.{field} is {value}; it must be {reached[0]}")


def _check_none(hint: object, name: str, default: object) -> None:
    """Raises a ValueError for nothing as a number, text or switch, which no parser notices in plain data."""
    # A required option that is missing is said by who requires it, and a default of None makes it a value.
    if default is None or default is inspect.Parameter.empty:
        return
    kinds = {get_args(part)[0] if get_origin(part) is Annotated else part for part in _parts(hint)}
    if kinds and kinds <= {int, float, str, bool}:
        what = " or ".join(sorted({_WORDS[kind] for kind in kinds}))  # type: ignore[index]
        raise ValueError(f"{name} is null; it must be {what}")


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _check_number(hint: object, value: float, name: str, default: object) -> None:
    ranges = _ranges(hint)
    if any(value in allowed for allowed in ranges or [Range()]):
        return
    if isinstance(default, float) and (value == default or (math.isnan(value) and math.isnan(default))):
        # A stranger's option whose default is no finite number knows what it means.
        return
    raise ValueError(f"{name} is {value}; it must be {ranges[0] if ranges else Range()}")


def _ranges(hint: object) -> list[Range]:
    """The ranges of the numbers among the alternatives of a type."""
    return [next((r for r in _extras(part) if isinstance(r, Range)), Range()) for part in _parts(hint, numbers=True)]


def _parts(hint: object, *, numbers: bool = False) -> list[object]:
    """The alternatives of a type; with ``numbers``, those alone that are numbers, with their ranges."""
    if get_origin(hint) in (Union, types.UnionType):
        return [part for alternative in get_args(hint) for part in _parts(alternative, numbers=numbers)]
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return [hint] if not numbers or bare in (int, float) else []


def _extras(hint: object) -> tuple[object, ...]:
    return getattr(hint, "__metadata__", ())


def _element(hint: object, number: int) -> object:
    """The type of a list's or tuple's element."""
    for part in _parts(hint):
        arguments = get_args(part)
        if get_origin(part) is tuple and len(arguments) > number and arguments[-1] is not Ellipsis:
            return arguments[number]
        if arguments and get_origin(part) not in (Annotated, dict):
            return arguments[0]
    return object
