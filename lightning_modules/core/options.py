"""Options of a family as nested data: frozen dataclasses in Python, plain dictionaries in recipes and checkpoints.

An option may have had another name before. A family says so once (``ImageFamily.renamed_options``), and recipes,
command lines, checkpoints and exported configs that use the older name are still understood.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping

from gesso.common.ranges import declarations, group_of

#: Older name of an option -> the paths of those that have taken its place: ``{"lr": ("optimizer.lr",)}``.
Renamed = Mapping[str, tuple[str, ...]]


def plain(value: object) -> object:
    """``value`` as JSON and YAML can hold it: dataclasses and mappings as dictionaries, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def constructor_options(hyper_parameters: Mapping[str, object]) -> dict[str, object]:
    """The options that build the same family again, as plain data, from its ``hparams`` or a checkpoint's."""
    # Lightning and jsonargparse keep notes of their own among them.
    return {name: plain(value) for name, value in hyper_parameters.items() if not name.startswith("_")}


def constructor_arguments(family: type, options: Mapping[str, object]) -> dict[str, object]:
    """``options`` as the family's constructor takes them: a dataclass for each dictionary where the default is one.

    Fields that a dictionary leaves out are the default's.

    Raises:
        ValueError: a dataclass has no such field; names both.
    """
    defaults: dict[str, object] = {}
    for kind in reversed(family.__mro__):
        if "__init__" in vars(kind):
            parameters = inspect.signature(vars(kind)["__init__"]).parameters
            defaults |= {name: parameter.default for name, parameter in parameters.items()}
    hints = declarations(family)
    return {name: _like(hints.get(name, (object,))[0], defaults.get(name), name, v) for name, v in options.items()}


def _like(hint: object, default: object, name: str, value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    # An option that is no dataclass by default may be one: a number's schedule.
    kind: type | None = type(default) if dataclasses.is_dataclass(default) else group_of(hint)
    if kind is None:
        return value
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(value.keys() - set(known)):
        raise ValueError(f"{name} has no option {unknown[0]}; it has {', '.join(known)}")
    hints = declarations(kind)
    fields = {
        key: _like(hints.get(key, (object,))[0], getattr(default, key, None), f"{name}.{key}", item)
        for key, item in value.items()
    }
    if isinstance(default, kind):
        return dataclasses.replace(default, **fields)  # type: ignore[type-var]
    return kind(**fields)


def with_new_names(options: Mapping[str, object], renamed: Renamed) -> tuple[dict[str, object], list[str]]:
    """Replaces older names of options by the present ones.

    Returns:
        The options, and the older names that were found. Where both names are given, the present one's value holds.

    Raises:
        ValueError: an option that should hold other options does not.
    """
    # An older name may now be that of a group of options.
    old = [name for name, value in options.items() if name in renamed and not isinstance(value, Mapping)]
    current = {name: plain(value) for name, value in options.items() if name not in old}
    for name in old:
        for path in renamed[name]:
            *groups, last = path.split(".")
            place = current
            for group in groups:
                below = place.setdefault(group, {})
                if not isinstance(below, dict):
                    raise ValueError(f"{group} is {below!r}; it holds options, such as {path}")
                place = below
            place.setdefault(last, options[name])
    return current, old


def renaming_notice(old: list[str], renamed: Renamed, *, prefix: str = "") -> str:
    """One line that names the present names of options given by older ones."""
    pairs = [f"{prefix}{name} is now {' and '.join(prefix + path for path in renamed[name])}" for name in old]
    return f"options have other names: {'; '.join(pairs)}"


def paths(options: Mapping[str, object], name: str, *, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Paths and values of all options called ``name``, at any depth: ``generator.gradient_checkpointing``, False."""
    for key, value in options.items():
        if key == name:
            yield prefix + key, value
        elif isinstance(value, Mapping):
            yield from paths(value, name, prefix=f"{prefix}{key}.")


def replaced(options: Mapping[str, object], name: str, value: object) -> dict[str, object]:
    """A copy of ``options`` with ``value`` for every option called ``name``, at any depth."""
    return {
        key: value if key == name else replaced(item, name, value) if isinstance(item, Mapping) else item
        for key, item in options.items()
    }


def changes(before: Mapping[str, object], after: Mapping[str, object], *, prefix: str = "") -> list[str]:
    """Differences between two sets of options, such as ``generator.width: 8 -> 16``, of those that both have."""
    found: list[str] = []
    for key, value in after.items():
        earlier = before.get(key)
        if isinstance(value, Mapping) and isinstance(earlier, Mapping):
            found += changes(earlier, value, prefix=f"{prefix}{key}.")
        elif key in before and before[key] != value:
            found.append(f"{prefix}{key}: {before[key]} -> {value}")
    return found
