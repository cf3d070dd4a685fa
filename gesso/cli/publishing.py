"""Options of the commands that make pictures: signed, with a watermark, entered into a journal."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launch.provenance.publication import Publication


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options; none of them, and pictures are written as ever."""
    group = parser.add_argument_group("where pictures come from, needs gesso[provenance]")
    group.add_argument(
        "--sign", nargs=2, type=Path, metavar=("KEY", "CERT"), help="C2PA credentials in each file, signed by this key"
    )
    group.add_argument("--watermark", metavar="TEXT", help="an invisible one: up to 8 bytes, or 0x and 16 digits")
    group.add_argument(
        "--journal", type=Path, metavar="FILE", help="of fingerprints (default, if signed: beside the pictures)"
    )


def asked(arguments: argparse.Namespace, targets: Iterable[Path]) -> Publication | None:
    """What the command asks for, with no facts yet; None: nothing.

    Args:
        arguments: parsed.
        targets: the files to be written; what cannot be signed is known before anything is made.

    Raises:
        ValueError, FileNotFoundError: a key, certificate or watermark that will not do, or no file for credentials.
    """
    if not (arguments.sign or arguments.watermark is not None or arguments.journal):
        return None
    from launch.provenance import Publication, check_identity, read_identity
    from launch.provenance.watermark import DwtDctSvd, read_message

    message = b"" if arguments.watermark is None else read_message(arguments.watermark)
    publication = Publication(
        facts={},
        identity=check_identity(read_identity(*arguments.sign)) if arguments.sign else None,
        journal=arguments.journal,
        watermark=DwtDctSvd() if message else None,
        message=message,
    )
    for target in targets:
        publication.check(target)
    return publication
