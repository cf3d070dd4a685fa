"""What a file's credentials are worth: signed by whom, changed since, or taken off; nothing is asked of a network."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.decoding.images import BadImage, read_image
from gesso.common.extras import needing
from gesso.common.pictures import is_picture
from gesso.common.text import harmless
from launch.inference.pictures import is_ours
from launch.provenance.credentials import ASSERTION, BRANDS, EDITED, GENERATED, context, mime_of
from launch.provenance.identity import TEST_ORGANISATION
from launch.provenance.journal import Journal
from launch.provenance.layout import STORES, Odd, check_layout
from launch.provenance.watermark import DwtDctSvd, Watermark, written_message

with needing("provenance"):
    import c2pa

#: trusted: signed by a certificate that the given anchors vouch for; signed: by one that nobody here vouches for;
#: tampered: changed since it was signed; stripped: made by gesso, as a journal, a watermark or the file itself says,
#: and without credentials; unsigned: without, and nothing is known of it; unreadable: no picture.
State = Literal["trusted", "signed", "tampered", "stripped", "unsigned", "unreadable"]
#: Videos whose credentials can be read.
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov")


@dataclass(frozen=True)
class Verdict:
    """What is known of a file.

    Args:
        file: the file.
        state: see ``State``.
        words: the same for people, in one line that is safe to print.
        facts: gesso's own assertion, of a file whose signature holds; a stranger's words, if a stranger signed.
    """

    file: Path
    state: State
    words: str
    facts: dict[str, Any]

    def line(self) -> str:
        """The verdict in one line."""
        return f"{printable_path(self.file)}: {self.state}: {self.words}"


class Verifier:
    """Judges files.

    Args:
        trust: certificates in PEM that vouch for signers (of a root, mostly); None: nobody is trusted.
        journal: fingerprints, in which pictures without credentials are looked up.
        watermark: how pictures without credentials are searched for a message.
    """

    def __init__(
        self, *, trust: str | None = None, journal: Journal | None = None, watermark: Watermark | None = None
    ) -> None:
        anchors = {"trust": {"user_anchors": trust}} if trust else {}
        self._context = context(**anchors)
        self._journal = journal
        self._watermark = watermark if watermark is not None else DwtDctSvd()

    def verify(self, file: Path) -> Verdict:
        """Judges one file.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file")
        with file.open("rb") as stream:
            mime = mime_of(stream.read(16))
        if mime is None:
            return self._without(file)
        try:
            with file.open("rb") as stream, c2pa.Reader(mime, stream, context=self._context) as reader:
                report = json.loads(reader.json())
        except c2pa.C2paError as error:
            if isinstance(error, c2pa.C2paError.ManifestNotFound):
                return self._without(file)
            if "must fetch remote manifests" in str(error):
                return Verdict(file, "unsigned", "its credentials lie elsewhere; nothing is fetched", {})
            return self._broken(file, str(error))
        return self._judged(file, mime, report)

    def _judged(self, file: Path, mime: str, report: dict[str, Any]) -> Verdict:
        state = report.get("validation_state")
        manifest = report.get("manifests", {}).get(report.get("active_manifest"), {})
        if state not in ("Valid", "Trusted"):
            return Verdict(file, "tampered", f"changed since it was signed ({_failures(report)})", {})
        facts = next((one["data"] for one in manifest.get("assertions", []) if one["label"] == ASSERTION), None)
        if isinstance(facts, dict) and mime in STORES:
            try:
                with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    check_layout(data, mime, brands=facts.get(BRANDS))
            except Odd as error:
                return Verdict(file, "tampered", f"changed since it was signed ({error})", {})
        facts = facts if isinstance(facts, dict) else {}
        trusted = state == "Trusted"
        return Verdict(file, "trusted" if trusted else "signed", _signed(manifest, facts, trusted), facts)

    def _broken(self, file: Path, error: str) -> Verdict:
        """A file that holds credentials which cannot be read, or that is no whole file of its kind."""
        if _pixels(file) is None and file.suffix.lower() not in VIDEO_SUFFIXES:
            return Verdict(file, "unreadable", "not a picture that can be read", {})
        return Verdict(file, "tampered", f"its credentials are damaged ({harmless(error)})", {})

    def _without(self, file: Path) -> Verdict:
        """A file without credentials, looked up in what else is known."""
        image = _pixels(file)
        if image is None:
            if file.suffix.lower() in VIDEO_SUFFIXES:
                return Verdict(file, "unsigned", "no credentials: never signed, or they were taken off", {})
            return Verdict(file, "unreadable", "not a picture that can be read", {})
        found = []
        if self._journal is not None and (entry := self._journal.find(image)):
            run = f" of {entry.run}" if entry.run else ""
            found.append(
                f"the journal knows it as {entry.file}{run}, {entry.made} ({entry.distance} of 256 bits differ)"
            )
        if (message := self._watermark.extract(image)) is not None:
            found.append(f"its watermark says {written_message(message)}")
        if not found and is_ours(file):
            found.append("gesso made it, as the file itself says")
        if found:
            return Verdict(file, "stripped", f"without credentials, but {'; '.join(found)}", {})
        return Verdict(file, "unsigned", "no credentials: never signed, or they were taken off", {})


def files_in(folder: Path) -> list[Path]:
    """The pictures and videos of a folder and the folders in it, by name; nothing hidden.

    Raises:
        FileNotFoundError: there are none.
    """
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(where, name)
            for name in sorted(names)
            if is_picture(name) or (Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."))
        ]
    if not found:
        raise FileNotFoundError(f"{folder}: no picture here, and no video in MP4")
    return found


def printable_path(file: Path) -> str:
    """A file's name, safe to print, whatever its length."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(file))


def _pixels(file: Path) -> np.ndarray | None:
    """uint8 [H, W, 3]; None: not a picture that can be read."""
    if file.suffix.lower() in VIDEO_SUFFIXES:
        return None
    try:
        return read_image(file.read_bytes(), 3)
    except BadImage:
        return None


def _failures(report: dict[str, Any]) -> str:
    """What does not agree, by C2PA's codes."""
    results = report.get("validation_results", {}).get("activeManifest", {})
    codes = [
        one.get("code", "") for one in results.get("failure", []) if one.get("code") != "signingCredential.untrusted"
    ]
    codes = codes or [one.get("code", "") for one in report.get("validation_status", [])]
    return harmless(", ".join(dict.fromkeys(codes)) or "no reason is given")


def _signed(manifest: dict[str, Any], facts: dict[str, Any], trusted: bool) -> str:
    """By whom, how, and of what, in words."""
    signature = manifest.get("signature_info", {})
    issuer, name = signature.get("issuer"), signature.get("common_name") or signature.get("issuer") or "nobody"
    words = [f"by {harmless(name)}"]
    if issuer == TEST_ORGANISATION:
        words[0] += ", a test certificate that says nothing of who signed"
    elif not trusted:
        words[0] += ", a certificate that nobody here vouches for (--trust names who does)"
    words.append(_made(manifest))
    words += [f"{name} {harmless(facts[name])}" for name in ("run", "seed") if name in facts]
    parents = [one for one in manifest.get("ingredients", []) if one.get("relationship") == "parentOf"]
    for parent in parents:
        whose = ", which has credentials of its own" if parent.get("active_manifest") else ""
        words.append(f"of {harmless(parent.get('title', 'a picture'))}{whose}")
    return "; ".join(word for word in words if word)


def _made(manifest: dict[str, Any]) -> str:
    actions: Sequence[dict[str, Any]] = [
        action
        for one in manifest.get("assertions", [])
        if str(one.get("label", "")).startswith("c2pa.actions") and isinstance(one.get("data"), dict)
        for action in one["data"].get("actions", [])
    ]
    kinds = {str(action.get("digitalSourceType")) for action in actions}
    if GENERATED in kinds:
        return "generated by a model"
    return "edited by a model" if EDITED in kinds else ""
