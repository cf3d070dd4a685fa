"""`gesso recipes`."""

from __future__ import annotations

import argparse

from launch.training.recipes import RECIPES, recipes, resolve_recipe


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("recipes", help="list the packaged recipes, or print one")
    parser.add_argument("name", nargs="?", help="print this recipe, to copy and change")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.name:
        print(resolve_recipe(arguments.name).read_text(), end="")
        return 0
    for name, what in recipes().items():
        print(f"{name:24} {what}")
    print(f"\nTrain one with `gesso fit --config NAME`; the files are in {RECIPES}")
    return 0
