"""The HTML document around a report, self-contained."""

from __future__ import annotations

from html import escape
from pathlib import Path

from gesso.common.files import write_whole
from launch.report.pieces import Html

HERE = Path(__file__).parent


#: What a page that is opened as a file may do: nothing but show itself, whatever a config in it may hold.
CLOSED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(title: str, body: Html, *, policy: str = CLOSED, styles: str = "", scripts: str = "") -> Html:
    """A whole page.

    Args:
        title: plain text.
        body: what stands in its ``<main>``.
        policy: its content security policy.
        styles, scripts: CSS and JavaScript beside the reports' own.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)} · gesso</title>
<style>{(HERE / "page.css").read_text()}{styles}</style>
</head>
<body>
<main>
{body}
</main>
<script>{(HERE / "page.js").read_text()}{scripts}</script>
</body>
</html>
"""


def write_page(file: Path, page: Html) -> Path:
    """Writes a page; an earlier one stays if that fails.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(file, page)
    return file
