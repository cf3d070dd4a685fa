"""`gesso rate`: what people think."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gesso.common.arguments import seed

if TYPE_CHECKING:
    from launch.rating.files import Key, Sheet
    from launch.rating.scores import Difference, MethodScore


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("rate", help="let people judge methods blindly, and sum up their scores")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_make(verbs)
    _add_summary(verbs)


def _add_make(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "make",
        help="a page on which people rate pictures without knowing what made them",
        description="Writes one HTML page for everyone who rates (self-contained: send it by mail, or put it on a "
        "server), and beside it the key that says which method made which picture: keep that to yourself.",
    )
    parser.add_argument("content", metavar="CONTENT_FOLDER", type=Path)
    parser.add_argument(
        "methods",
        nargs="+",
        metavar="METHOD=FOLDER",
        help="stylised pictures under the content's names: what `gesso stylize CONTENT_FOLDER --out FOLDER` writes",
    )
    parser.add_argument(
        "--style", type=Path, metavar="PICTURE_OR_FOLDER", help="shown too; in a folder, under the content's names"
    )
    parser.add_argument(
        "--question", default="overall", help="overall (default), content, style, or a sentence of your own"
    )
    parser.add_argument("--num", type=int, metavar="N", help="number of the content's pictures (default all)")
    parser.add_argument("--seed", type=seed, default=0, help="seed that draws them")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="longer side in pixels, at most (512)")
    parser.add_argument("--out", type=Path, default=Path("rate.html"), metavar="HTML", help="default rate.html")
    parser.set_defaults(run=_make)


def _make(arguments: argparse.Namespace) -> int:
    if min(value for value in (arguments.num, arguments.size) if value is not None) < 1:
        raise ValueError("--num and --size must be 1 or more")
    if not arguments.question.strip():
        raise ValueError("--question: there is none")
    from launch.rating.page import QUESTIONS, Request, make_page

    request = Request(
        content=arguments.content,
        methods=_methods(arguments.methods),
        style=arguments.style,
        question=QUESTIONS.get(arguments.question, arguments.question),
        num=arguments.num,
        seed=arguments.seed,
        size=arguments.size,
    )
    made = make_page(request, arguments.out)
    for method, stems in made.missing.items():
        names = ", ".join(stems[:3]) + ", ..." * (len(stems) > 3)
        print(f"gesso: {method} lacks {len(stems)} pictures ({names}): left out for every method", file=sys.stderr)
    pairs = made.pictures * len(request.methods)
    size = made.page.stat().st_size / 1e6
    print(f"{made.page}: {pairs} to rate ({made.pictures} pictures x {len(request.methods)} methods), {size:.1f} MB")
    print(f"{made.key}: which method made which, not for the raters' eyes")
    return 0


def _methods(given: Sequence[str]) -> dict[str, Path]:
    methods: dict[str, Path] = {}
    for word in given:
        method, _, folder = word.partition("=")
        if not method or not folder:
            raise ValueError(f"{word}: must be METHOD=FOLDER")
        if method in methods:
            raise ValueError(f"{word}: {method} is named twice")
        methods[method] = Path(folder)
    return methods


def _add_summary(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "summary",
        help="summary of the scores: means by method and paired differences, with 95 %% intervals",
        description="Reads the scores that raters saved. The page's key must lie beside the scores or the page.",
    )
    parser.add_argument("scores", nargs="+", type=Path, metavar="SCORES.json")
    parser.add_argument(
        "--page", nargs="+", type=Path, default=[], metavar="HTML", help="pages whose keys lie beside them"
    )
    parser.add_argument("--key", nargs="+", type=Path, default=[], metavar="JSON", help="keys of pages")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures too")
    parser.set_defaults(run=_summary)


def _summary(arguments: argparse.Namespace) -> int:
    from gesso.common.files import write_all_whole
    from launch.rating import scores

    keys = _keys(arguments)
    sheets = _sheets(arguments.scores, keys)
    if not sheets:
        return 2
    questions = sorted({keys[sheet.page].question for sheet in sheets})
    if len(questions) > 1:
        raise ValueError(
            f"these scores answer {len(questions)} questions, sum up one at a time: {' / '.join(questions)}"
        )
    rated = scores.ratings(sheets, keys)
    methods = scores.by_method(rated)
    pairs = scores.differences(rated, [method.method for method in methods])
    _show(questions[0], methods, pairs)
    if arguments.json:
        figures = {
            "question": questions[0],
            "interval": {"level": scores.LEVEL, "kind": "Student's t over pictures"},
            "methods": [vars(method) for method in methods],
            "differences": [vars(pair) for pair in pairs],
        }
        write_all_whole({arguments.json: json.dumps(figures, indent=1, ensure_ascii=False) + "\n"})
    return int(len(sheets) < len(arguments.scores))


def _keys(arguments: argparse.Namespace) -> dict[str, Key]:
    """The keys by page: those that were named, else those that lie beside the scores."""
    from launch.rating.files import key_of, read_key

    named = [*arguments.key, *(key_of(page) for page in arguments.page)]
    keys = [read_key(file) for file in named]
    if not named:
        for file in sorted({key for scores in arguments.scores for key in scores.parent.glob("*.key.json")}):
            # Nobody said that this file is one.
            with contextlib.suppress(ValueError):
                keys.append(read_key(file))
    return {key.page: key for key in keys}


def _sheets(files: Sequence[Path], keys: dict[str, Key]) -> list[Sheet]:
    """The files that are good; one broken file must not cost the others, and gets its line."""
    from launch.rating.files import read_sheet

    sheets = []
    for file in files:
        try:
            sheets.append(read_sheet(file, keys))
        except (ValueError, FileNotFoundError) as error:
            print(f"gesso: {error}", file=sys.stderr)
    return sheets


def _show(question: str, methods: Sequence[MethodScore], pairs: Sequence[Difference]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(question), end="\n\n")
    table = Table("method", box=None, pad_edge=False)
    for column in ("ratings", "raters", "pictures", "mean", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in methods:
        counts = (str(number) for number in (row.ratings, row.raters, row.pictures))
        table.add_row(Text(row.method), *counts, f"{row.mean:.2f}", _interval(row, ".2f"))
    console.print(table)
    if not pairs:
        return
    table = Table("difference", box=None, pad_edge=False)
    for column in ("raters", "pictures", "mean", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in pairs:
        name = Text(f"{pair.method} - {pair.other}")
        table.add_row(name, str(pair.raters), str(pair.pictures), f"{pair.mean:+.2f}", _interval(pair, "+.2f"))
    console.print()
    console.print(table)


def _interval(row: MethodScore | Difference, form: str) -> str:
    return "-" if row.low is None or row.high is None else f"{row.low:{form}} to {row.high:{form}}"
