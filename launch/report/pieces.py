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
