"""Merges recipes and overrides as plain mappings, before any class that they name is imported.

A recipe is a mapping of mappings; an override names one option by its dotted path, ``run.kimg`` or
``model.generator.width``, with its value as a Python object or as on the command line (``"20"``, ``"[fid, kid]"``).
``model`` and ``data`` name a class and its options; an override leaves ``init_args`` out. Older names of a family's
options are accepted.
"""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, cast

from datamodules.catalogue import DATA
from gesso.common.arguments import plain
from gesso.common.strict_yaml import load_yaml, read_mapping
from launch.training.recipes import resolve_recipe
from launch.training.renaming import OlderNames
from lightning_modules.catalogue import FAMILIES

#: Name of a packaged recipe, a YAML file, or the content of such a file.
Recipe: TypeAlias = str | os.PathLike[str] | Mapping[str, object]
Layer: TypeAlias = dict[str, object]

#: Sections that name a class by a catalogue's name or by its import path.
CATALOGUES = {"model": FAMILIES, "data": DATA}
_NO_OPTIONS = ("config", "resume", "checkpoint")
_OF_A_CLASS = {"class_path", "init_args", "dict_kwargs"}


def layers(
    recipes: Sequence[Recipe], overrides: Mapping[str, object], *, sections: Collection[str] = ()
) -> list[Layer]:
    """Layers for the parser, to be read in turn: a new layer begins where another class is named.

    Args:
        recipes: later ones override earlier ones.
        overrides: option -> value; they override all recipes.
        sections: what a recipe may hold at its top; empty: anything.

    Raises:
        FileNotFoundError: no such recipe.
        ValueError: a file is no recipe or has an unknown section, or a family is unknown.
    """
    found: list[Layer] = [{}]
    names = OlderNames()
    for recipe in recipes:
        content = read_recipe(recipe)
        if sections and (unknown := [name for name in content if name not in sections]):
            where = "" if isinstance(recipe, Mapping) else f"{os.fspath(recipe)}: "
            close = difflib.get_close_matches(str(unknown[0]), sections, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sections)}"
            raise ValueError(f"{where}a recipe has no section {unknown[0]!r}; {hint}")
        _lay(found, content, names)
    if not isinstance(overrides, Mapping):
        raise ValueError(f"overrides map options to values, as {{'run.kimg': 20}}; they are a {_kind(overrides)}")
    for name, given in overrides.items():
        if not isinstance(name, str):
            raise ValueError(f"{name!r} in the overrides is no option's name, such as run.kimg")
        if name in _NO_OPTIONS:
            raise ValueError(f"{name} is no option of a recipe: it cannot be overridden")
        value = _of_section(name, plain(given), sections)
        over: Layer = {name: value}
        if name in CATALOGUES:
            _lay(found, over, names)
        elif name.endswith(".class_path") and (section := name.removesuffix(".class_path")) in CATALOGUES:
            _check_class_path(section, value)
            _lay(found, {section: {"class_path": value}}, names)
        else:
            for path in names.paths(_class_path(found[-1].get("model")), name, value):
                set_option(found[-1], path, copy.deepcopy(value))
    names.report()
    return found


def read_recipe(recipe: Recipe) -> Layer:
    """Reads a recipe, given by name, as a file or as its content.

    Raises:
        FileNotFoundError: neither a file nor a packaged recipe.
        ValueError: the file is no YAML, has a key twice, or is no mapping; names the file and the line.
    """
    if isinstance(recipe, Mapping):
        return cast(Layer, plain(recipe))
    if not isinstance(recipe, str | os.PathLike):
        raise ValueError(f"a recipe is a name, a file or a mapping, not a {_kind(recipe)}")
    file = resolve_recipe(os.fspath(recipe))
    return read_mapping(file, what="recipe: that maps sections (model, data, run ...) to their options")


def set_option(layer: Layer, name: str, value: object) -> None:
    """Sets the option ``name``, such as ``model.generator.width``, in place; ``name+`` adds to a list.

    A mapping is merged into the options that are there, unless it names another class.

    Raises:
        ValueError: a part of the path has no options.
    """
    *path, last = name.split(".")
    node = layer
    for depth, key in enumerate(path):
        node = _below(node, key, name)
        below_it = [*path, last][depth + 1]
        names_a_class = "class_path" in node or (depth == 0 and key in CATALOGUES)
        if names_a_class and below_it.rstrip("+") not in _OF_A_CLASS:
            node = _below(node, "init_args", name)
    if last.endswith("+"):
        before = node.get(last.rstrip("+")) or []
        added = value if isinstance(value, list) else [value]
        node[last.rstrip("+")] = [*(before if isinstance(before, list) else [before]), *added]
    elif isinstance(known := node.get(last), dict) and isinstance(value, Mapping) and not _other_class(known, value):
        merge(known, value)
    else:
        node[last] = value


def _other_class(known: Mapping[str, object], value: Mapping[str, object]) -> bool:
    return value.get("class_path", known.get("class_path")) != known.get("class_path")


def _of_section(name: str, value: object, sections: Collection[str]) -> object:
    """The value of an override; of a whole section, a mapping, also where it is written as YAML."""
    if name in sections and isinstance(value, str) and value.lstrip().startswith("{"):
        return load_yaml(value)
    return value


def _kind(value: object) -> str:
    return type(value).__name__


def _below(node: Layer, key: str, name: str) -> Layer:
    value = node.setdefault(key, {})
    if value is None:
        value = node[key] = {}
    if isinstance(value, list) and value:
        # As in LightningCLI: options that follow a list belong to its last entry.
        if isinstance(value[-1], str):
            value[-1] = {"class_path": value[-1]}
        value = value[-1]
    elif isinstance(value, str):
        value = node[key] = {"class_path": value}
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {key} is {value!r}, which has no options")
    return value


def _check_class_path(section: str, path: object) -> None:
    if not isinstance(path, str | None):
        raise ValueError(f"{section}.class_path is {path!r}; it must be a name or an import path")


def _class_path(section: object) -> object:
    return section.get("class_path") if isinstance(section, dict) else section


def _lay(found: list[Layer], over: Layer, names: OlderNames) -> None:
    """Merges a recipe into the last layer, or into a new one where it names another class."""
    for section, catalogue in CATALOGUES.items():
        if section not in over:
            continue
        content = over[section]
        if isinstance(content, str):
            content = load_yaml(content) if content.lstrip().startswith("{") else {"class_path": content}
        if not isinstance(content, dict):
            raise ValueError(f"{section}: write a class_path and init_args, not {content!r}")
        over[section] = content
        _check_class_path(section, content.get("class_path"))
        if isinstance(content.get("class_path"), str):
            content["class_path"] = catalogue.path(str(content["class_path"]))
            known = _class_path(found[-1].get(section))
            if known not in (None, content["class_path"]):
                found.append({})
        if section == "model" and isinstance(options := content.get("init_args"), dict):
            class_path = content.get("class_path") or _class_path(found[-1].get("model"))
            content["init_args"] = names.replace(class_path, options)
    merge(found[-1], over)


def merge(below: Layer, over: Mapping[str, object]) -> None:
    """Merges ``over`` into ``below``, in place and recursively; values of ``over`` override."""
    for key, value in over.items():
        known = below.get(key)
        if isinstance(known, dict) and isinstance(value, Mapping):
            merge(known, value)
        else:
            below[key] = value
