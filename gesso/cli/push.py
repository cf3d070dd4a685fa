"""`gesso push`."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "push",
        help="publish a run: weights, config, a model card",
        description="Sends a run's weights with a model card to Hugging Face, or writes the folder alone.",
    )
    parser.add_argument("run_folder", metavar="RUN")
    parser.add_argument("--to", metavar="hf:OWNER/NAME", help="where to; needs gesso[hub] and a token (hf auth login)")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="write the folder, and send nothing")
    parser.add_argument("--license", "--licence", dest="licence", metavar="SPDX", help="of the weights, such as MIT")
    parser.add_argument("--private", action="store_true", help="nobody but the owner sees it")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder, and sends it unless it is a dry run."""
    name = (arguments.to or "").removeprefix("hf:")
    if arguments.to and (name == arguments.to or not re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
        raise ValueError(f"--to {arguments.to}: write hf:OWNER/NAME")
    if not arguments.to and not arguments.dry_run:
        raise ValueError("--to hf:OWNER/NAME says where to; --dry-run FOLDER writes the folder alone")
    if arguments.licence is not None and not re.fullmatch(r"[A-Za-z0-9.+-]+", arguments.licence):
        raise ValueError(f"--license {arguments.licence}: write an SPDX identifier, such as MIT or CC-BY-4.0")
    from launch.publishing.folder import upload, write_folder

    chosen = {"average": not arguments.raw, **({"licence": arguments.licence} if arguments.licence else {})}
    if arguments.dry_run:
        print(write_folder(arguments.run_folder, arguments.dry_run, **chosen))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        print(
            upload(
                write_folder(arguments.run_folder, Path(folder) / "model", **chosen), name, private=arguments.private
            )
        )
    return 0
