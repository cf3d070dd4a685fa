"""`gesso recipes`."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("recipes", help="list the packaged recipes, or print one")
    parser.add_argument("name", nargs="?", help="print this recipe, to copy and change")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from launch.training.recipes import described, folders, resolve_recipe

    if arguments.name:
        print(resolve_recipe(arguments.name).read_text(), end="")
        return 0
    for package, folder in folders().items():
        if package != "gesso":
            print(f"\nof the package {package}, in {folder}")
        for name, what in described(folder).items():
            print(f"{name:24} {what}")
    print(f"\nTrain one with `gesso fit --config NAME`; the files are in {folders()['gesso']}")
    return 0
