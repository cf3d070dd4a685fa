"""Small pieces of HTML that the sections of the page share."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, TypeGuard

from launch.report.embed import Picture

#: Text that is HTML already; everything else goes through ``escape``.
Html = str


def section(title: str, content: Html) -> Html:
    """A section, or nothing when there is nothing to show."""
    return f"<section><h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def grid_of(kind: str, cells: list[Html]) -> Html:
    return f'<div class="{kind}">\n' + "\n".join(cells) + "\n</div>" if cells else ""


def table(heads: list[str], rows: list[list[Html]]) -> Html:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def definitions(rows: Mapping[str, Html]) -> Html:
    if not rows:
        return ""
    return "<dl>" + "\n".join(f"<dt>{escape(what)}</dt><dd>{value}</dd>" for what, value in rows.items()) + "</dl>"


def image(picture: Picture, name: str, *, hidden: bool = False) -> Html:
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="{picture.uri}" alt="{escape(name)}" {size}{" hidden" if hidden else ""}>'


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def mapping(value: object) -> dict[str, Any]:
    """A value from JSON if it is an object, else {}."""
    return value if isinstance(value, dict) else {}


def pictures_of(reference: Mapping[str, object]) -> str:
    """Real pictures to compare with, in words: ``60,000 of mnist, train``."""
    images = f"{reference['images']:,} of " if is_number(reference.get("images")) else ""
    named = ", ".join(str(reference[key]) for key in ("name", "split") if reference.get(key))
    return images + named if named else ""


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``: the two largest units."""
    total = round(seconds)
    units = [("d", total // 86400), ("h", total // 3600 % 24), ("min", total // 60 % 60), ("s", total % 60)]
    first = next((k for k, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2] if count) or "0 s"
