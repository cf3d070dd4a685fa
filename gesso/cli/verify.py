"""`gesso verify`: signed by whom, changed since, or without credentials; one line a file, and an exit code."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "verify",
        help="who signed a picture, and whether it was changed since",
        description="Says of each picture and MP4 video whether its C2PA credentials hold, and asks no network. Ends "
        "with 0 when all are signed and unchanged (by somebody trusted, with --trust), else with 1.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--trust", type=Path, metavar="PEM", help="certificates that vouch for signers")
    parser.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        help="fingerprints of what was made: finds what has lost its signature (default: fingerprints.jsonl beside)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from launch.provenance.identity import read_anchors
    from launch.provenance.journal import NAME, Journal
    from launch.provenance.verification import Verifier, files_in

    files: list[Path] = []
    for path in arguments.paths:
        files += files_in(path) if path.is_dir() else [path]
    trust = read_anchors(arguments.trust) if arguments.trust else None
    given = [arguments.journal] if arguments.journal else []
    # Those of pictures in folders of a folder lie there, too.
    folders = dict.fromkeys([*filter(Path.is_dir, arguments.paths), *(file.parent for file in files)])
    journals = given or [folder / NAME for folder in folders if (folder / NAME).is_file()]
    verifier = Verifier(trust=trust, journal=Journal(*journals) if journals else None)
    good = {"trusted"} if trust else {"trusted", "signed"}
    failed = 0
    for file in files:
        verdict = verifier.verify(file)
        if verdict.state == "unreadable" and files == arguments.paths[:1]:
            raise ValueError(f"{file}: not a picture that can be read, nor a video in MP4")
        print(verdict.line())
        failed += verdict.state not in good
    return int(failed > 0)
