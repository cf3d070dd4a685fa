"""The packaged recipes: YAML, one for each family and data set."""

from __future__ import annotations

import difflib
from pathlib import Path

RECIPES = Path(__file__).parents[1] / "configs"


def recipes() -> dict[str, str]:
    """Recipe name -> what it trains: the file's first comment line."""
    return described(RECIPES)


def resolve_recipe(name: str) -> Path:
    """The file of a recipe, given by path or by a packaged recipe's name.

    Raises:
        FileNotFoundError: neither a file nor a packaged recipe.
    """
    return resolve(name, RECIPES, kind="packaged recipe", listing="gesso recipes")


def described(folder: Path) -> dict[str, str]:
    """Name of each YAML file in a folder -> what it is for: its first comment line."""
    return {
        file.stem: file.read_text().splitlines()[0].removeprefix("#").strip() for file in sorted(folder.glob("*.yaml"))
    }


def resolve(name: str, folder: Path, *, kind: str, listing: str) -> Path:
    """A YAML file given by path, or by its name in a folder of ours.

    Args:
        name: path or name.
        folder: ours.
        kind: what a file there is called.
        listing: the command that lists them.

    Raises:
        FileNotFoundError: neither.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = folder / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    close = difflib.get_close_matches(name, described(folder), n=1)
    hint = f"did you mean {close[0]}?" if close else f"`{listing}` lists them"
    raise FileNotFoundError(f"{name}: neither a file nor a {kind}; {hint}")
