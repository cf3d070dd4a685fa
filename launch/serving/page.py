"""The page of a server: one file without anything from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent

#: Of the page's answer: it runs its own script, shows pictures that it holds, and talks to its own server alone.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def render() -> str:
    """The page, with its style and its script inside."""
    parts = {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
