"""A contract for import-linter that it does not have: no two files import each other in a circle, lazily or not."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter.application import output
from importlinter.domain.contract import Contract, ContractCheck


class AcyclicFiles(Contract):
    """Refuses circles of files; unlike ``acyclic_siblings``, two packages may use each other's files."""

    type_name = "acyclic_files"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        circles = find_circles({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
        return ContractCheck(kept=not circles, metadata={"circles": circles})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for circle in check.metadata["circles"]:
            output.print_error(" -> ".join([*circle, circle[0]]), bold=False)


def find_circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Circles of a graph, each from its first name on; none only if there is none.

    Args:
        imports: name -> the names that it imports.
    """
    circles: list[list[str]] = []
    done: set[str] = set()
    for start in sorted(imports):
        if start in done:
            continue
        # Depth first, without recursion: the path to here, and what is left to try at each of its steps.
        path, left = [start], [sorted(imports[start])]
        while path:
            if not left[-1]:
                done.add(path.pop())
                left.pop()
                continue
            name = left[-1].pop(0)
            if name in path:
                circle = path[path.index(name) :]
                first = circle.index(min(circle))
                circles.append(circle[first:] + circle[:first])
            elif name not in done:
                path.append(name)
                left.append(sorted(imports.get(name, ())))
    return circles
