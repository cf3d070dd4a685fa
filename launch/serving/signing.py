"""Credentials in a server's answers: which model made a picture, of what, at whose request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from launch.provenance import Parent, check_identity, read_identity, sign
from launch.serving.answers import Origin
from launch.serving.served import Served


class Signing:
    """A ``Seal``: C2PA credentials, signed by the server's owner.

    Args:
        key, certificate: files in PEM, see ``read_identity``.

    Raises:
        ValueError, FileNotFoundError: there are none, or they will not do; one line.
    """

    def __init__(self, key: Path, certificate: Path) -> None:
        self.identity = check_identity(read_identity(key, certificate))
        #: Of each model: a checkpoint's checksum takes a while.
        self._facts: dict[str, Mapping[str, object]] = {}

    def know(self, served: Served) -> None:
        """Notes where a model's weights come from, for the credentials of its pictures."""
        self._facts[served.facts.name] = dict(served.facts.made_by())

    def __call__(self, data: bytes, origin: Origin) -> bytes:
        """A picture's bytes with credentials: the picture that was sent first is the parent, others are its styles."""
        content, *styles = origin.sources or (b"",)
        facts: dict[str, object] = {
            **self._facts.get(origin.model, {}),
            **{name: value for name, value in origin.settings.items() if value is not None},
            **({"styles": [{"sha256": hashlib.sha256(style).hexdigest()} for style in styles]} if styles else {}),
        }
        parent = Parent("content", content) if origin.sources else None
        return sign(data, self.identity, facts, title=origin.model, parent=parent)
