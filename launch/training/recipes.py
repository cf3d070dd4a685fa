"""Recipes by name: YAML files, one for each family and data set; ours, and those of installed packages.

Another package adds a folder of its own in its ``pyproject.toml``::

    [project.entry-points."gesso.recipes"]
    my_package = "my_package"       # its *.yaml, or those of my_package/configs
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from gesso.common.catalogues import offers

RECIPES = Path(__file__).parents[1] / "configs"
GROUP = "gesso.recipes"


def folders() -> dict[str, Path]:
    """Package -> its folder of recipes, ours first; no package is imported.

    Raises:
        ValueError: a package declares a folder that is not there.
    """
    found = {"gesso": RECIPES}
    for offer in offers(GROUP):
        first, *rest = offer.value.replace(":", ".").split(".")
        spec = find_spec(first)
        places = [Path(place, *rest) for place in (spec.submodule_search_locations or [] if spec else [])]
        folder = next((f for place in places for f in (place / "configs", place) if any(f.glob("*.yaml"))), None)
        if folder is None:
            raise ValueError(f"the package {offer.package} declares recipes in {offer.value}: no *.yaml there")
        found[offer.package] = folder
    return found


def recipes() -> dict[str, str]:
    """Recipe name -> what it trains: the file's first comment line."""
    return {name: about for folder in folders().values() for name, about in described(folder).items()}


def resolve_recipe(name: str) -> Path:
    """The file of a recipe, given by path or by its name.

    Raises:
        FileNotFoundError: neither a file nor a recipe's name.
        ValueError: two packages have a recipe of this name.
    """
    return resolve(name, folders(), kind="packaged recipe", listing="gesso recipes")


def described(folder: Path) -> dict[str, str]:
    """Name of each YAML file in a folder -> what it is for: its first comment line."""
    return {
        file.stem: next(iter(file.read_text().splitlines()), "").removeprefix("#").strip()
        for file in sorted(folder.glob("*.yaml"))
    }


def resolve(name: str, places: Mapping[str, Path], *, kind: str, listing: str) -> Path:
    """A YAML file given by path, or by its name in one of some folders.

    Args:
        name: path or name.
        places: package -> its folder.
        kind: what a file there is called.
        listing: the command that lists them.

    Raises:
        FileNotFoundError: neither.
        ValueError: two packages have one of this name.
    """
    if Path(name).is_file():
        return Path(name)
    files = {package: folder / f"{name.removesuffix('.yaml')}.yaml" for package, folder in places.items()}
    files = {package: file for package, file in files.items() if file.is_file()}
    if len(files) > 1:
        raise ValueError(f"{kind} {name}: the packages {' and '.join(files)} have one each; give the file's path")
    if files:
        return next(iter(files.values()))
    known = [known for folder in places.values() for known in described(folder)]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"`{listing}` lists them"
    raise FileNotFoundError(f"{name}: neither a file nor a {kind}; {hint}")
