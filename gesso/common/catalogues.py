"""Classes by name: gesso's own and those of installed packages, which declare them as entry points.

Nothing is imported until it is asked for, and a name never becomes an import path: what a checkpoint calls itself can
only be looked up here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import NamedTuple


class Offer(NamedTuple):
    """One entry point: ``name = "value"``, and the distribution that declares it."""

    name: str
    value: str
    package: str


def offers(group: str) -> list[Offer]:
    """The entry points that installed packages declare in a group; their code is not imported."""
    found = {
        Offer(point.name, point.value, point.dist.name if point.dist else "?") for point in entry_points(group=group)
    }
    return sorted(found)


@dataclass(frozen=True)
class Catalogue:
    """Classes of one kind by name.

    Args:
        kind: what such a class is called in messages: ``family``.
        group: entry-point group of other packages: name of the class -> ``package.module:Class``.
        own: name -> module, of gesso's own.
    """

    kind: str
    group: str
    own: Mapping[str, str]

    def names(self) -> list[str]:
        """All names: gesso's own, then those of other packages."""
        return list(dict.fromkeys([*self.own, *(offer.name for offer in offers(self.group))]))

    def find(self, name: str) -> type:
        """The class of this name, imported now.

        Raises:
            ValueError: no such name, a name that two packages offer, or an entry point that names no such class.
            ImportError: the package that offers it cannot be imported.
        """
        places = self._places(name)
        if not places:
            raise ValueError(self._missing(name))
        if len(places) > 1:
            both = " and ".join(f"{package} ({value})" for value, package in places.items())
            raise ValueError(f"{self.kind} {name}: offered by {both}; rename or uninstall one of them")
        ((place, package),) = places.items()
        module, _, attribute = place.partition(":")
        try:
            found = getattr(import_module(module), attribute, None)
        except ImportError as error:
            raise ImportError(f"{self.kind} {name} of the package {package} cannot be imported: {error}") from error
        if not isinstance(found, type) or found.__name__ != name:
            # A checkpoint keeps the class's name, by which it is looked up here again.
            raise ValueError(
                f"{self.kind} {name} of the package {package}: the entry point {name} = {place!r} must name a class "
                f"that is called {name}, too"
            )
        return found

    def path(self, class_path: str) -> str:
        """The import path of a recipe's ``class_path``, which may be a name of this catalogue or a path already.

        Paths to classes that a package still offers by name lead to where these are now, wherever in the package they
        were when the path was written.
        """
        module, _, name = class_path.rpartition(".")
        if module and module.partition(".")[0] not in {re.split("[.:]", place)[0] for place in self._places(name)}:
            return class_path
        found = self.find(name)
        return f"{found.__module__}.{found.__qualname__}"

    def _places(self, name: str) -> dict[str, str]:
        """``module:Class`` of all that is offered under a name -> the package that offers it."""
        ours = {f"{self.own[name]}:{name}": "gesso"} if name in self.own else {}
        return ours | {offer.value: offer.package for offer in offers(self.group) if offer.name == name}

    def _missing(self, name: str) -> str:
        names = self.names()
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else self._remedy(name)
        return f"no {self.kind} {name!r}; there are {', '.join(names)}; {hint}"

    def _remedy(self, name: str) -> str:
        entry = f'{name} = "PACKAGE.MODULE:{name}"'
        return f'a package makes its own known in pyproject.toml: [project.entry-points."{self.group}"] {entry}'
