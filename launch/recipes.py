"""The packaged recipes: YAML, one for each family and data set."""

from __future__ import annotations

import difflib
from pathlib import Path

RECIPES = Path(__file__).parent / "configs"


def recipes() -> dict[str, str]:
    """Recipe name -> what it trains: the file's first comment line."""
    return {
        file.stem: file.read_text().splitlines()[0].removeprefix("#").strip() for file in sorted(RECIPES.glob("*.yaml"))
    }


def resolve_recipe(name: str) -> Path:
    """The file of a recipe, given by path or by a packaged recipe's name.

    Raises:
        FileNotFoundError: neither a file nor a packaged recipe.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = RECIPES / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    close = difflib.get_close_matches(name, recipes(), n=1)
    hint = f"did you mean {close[0]}?" if close else "`gesso recipes` lists them"
    raise FileNotFoundError(f"{name}: neither a file nor a packaged recipe; {hint}")
