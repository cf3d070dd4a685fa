"""C2PA credentials: what a picture was made by and of, signed, inside its file (the C2PA specification 2.2).

Nothing here asks a network: there is no time stamp, and a manifest that lies elsewhere is not fetched. No thumbnails:
credentials are some 4 kB, and those of the parent come on top.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from gesso.common.extras import needing
from gesso.common.files import writing_whole
from gesso.common.text import one_line
from launch.provenance.identity import Identity

with needing("provenance"):
    import c2pa

#: gesso's own assertion: run, checkpoint, seed, styles.
ASSERTION = "org.gesso.run"
#: Where it holds what an MP4's first box says, which C2PA leaves out of its sums.
BRANDS = "mp4_brands"
#: The files that are signed, by the ending of their name.
MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
}
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = f"{_SOURCE_TYPE}trainedAlgorithmicMedia"
EDITED = f"{_SOURCE_TYPE}compositeWithTrainedAlgorithmicMedia"
#: Of every call: no network, no thumbnails, no actions that nobody asked for.
_SETTINGS: dict[str, Any] = {
    "version": 1,
    "core": {"allowed_network_hosts": []},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "builder": {
        "thumbnail": {"enabled": False},
        "actions": {"auto_created_action": {"enabled": False}, "auto_opened_action": {"enabled": False}},
    },
}
_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


@dataclass(frozen=True)
class Parent:
    """The picture or video that another was made of.

    Args:
        name: as it is told to whoever reads the credentials.
        content: the file's bytes, or the file.
    """

    name: str
    content: bytes | Path

    @classmethod
    def of(cls, file: Path) -> Parent:
        """A file as a parent: its name without its folder."""
        return cls(file.name, file)


def context(**settings: object) -> c2pa.Context:
    """The library's settings, those that never ask a network; ``settings`` come on top."""
    return c2pa.Context.from_dict({**_SETTINGS, **settings})


def mime_of(head: bytes) -> str | None:
    """The kind of a file whose credentials can be read, by its first 16 bytes or more; None: another.

    >>> mime_of(b"RIFF\\0\\0\\0\\0WEBPVP8 "), mime_of(b"BM")
    ('image/webp', None)
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return "image/avif" if head[8:12] in (b"avif", b"avis") else "video/mp4"
    return next((mime for magic, mime in _MAGIC if head.startswith(magic)), None)


def check_signable(path: Path) -> Path:
    """Raises a ValueError where files of this name carry no credentials of gesso's; gives ``path`` back."""
    if (path.suffix.lower() or ".png") not in MIME:
        raise ValueError(f"{path}: credentials are written into {', '.join(MIME)}; end the name in one of these")
    return path


def sign(
    data: bytes,
    identity: Identity,
    facts: Mapping[str, object],
    *,
    title: str = "",
    parent: Parent | None = None,
) -> bytes:
    """A picture's or video's bytes with signed credentials in them.

    Args:
        data: PNG, JPEG, WebP or MP4.
        identity: who signs.
        facts: plain data that becomes gesso's own assertion: run, checkpoint, seed ...; a list of numbers as text.
        title: the file's name.
        parent: what it was made of, whose own credentials are kept; None: generated from nothing.

    Raises:
        ValueError: it is none of these formats, or the certificate is none that C2PA accepts.
    """
    target = io.BytesIO()
    sign_stream(io.BytesIO(data), target, identity, facts, title=title, parent=parent)
    return target.getvalue()


def sign_file(
    file: Path,
    identity: Identity,
    facts: Mapping[str, object],
    *,
    title: str = "",
    parent: Parent | None = None,
    out: Path | None = None,
    opened: bool = False,
) -> Path:
    """Like ``sign``, from a file to the file ``out``; None: it is replaced by its signed form, or stays as it is.

    ``opened``: the file is its parent's own pixels, which no model has edited.
    """
    out = file if out is None else out
    with writing_whole(out) as partial, file.open("rb") as source, partial.open("wb+") as target:
        sign_stream(source, target, identity, facts, title=title or file.name, parent=parent, opened=opened)
    return out


def sign_stream(
    source: IO[bytes],
    target: IO[bytes],
    identity: Identity,
    facts: Mapping[str, object],
    *,
    title: str = "",
    parent: Parent | None = None,
    opened: bool = False,
) -> None:
    """Like ``sign``, from one stream to another, both of which can seek."""
    mime = mime_of(source.read(16))
    source.seek(0)
    if mime == "video/mp4":
        facts = {**facts, BRANDS: source.read(int.from_bytes(source.read(4), "big") - 4)[4:].hex()}
        source.seek(0)
    if mime not in MIME.values():
        raise ValueError(f"{title or 'it'}: is no PNG, JPEG, WebP or MP4, into which credentials are written")
    with ExitStack() as stack:
        try:
            info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
            signer = stack.enter_context(c2pa.Signer.from_info(info))
            manifest = _manifest(facts, title, parent is not None, opened)
            builder = stack.enter_context(_builder(manifest, parent, stack))
            builder.sign(signer, mime, source, target)
        except c2pa.C2paError as error:
            raise ValueError(f"{title or 'it'}: cannot be signed by {identity.name} ({one_line(error)})") from error


def check_identity(identity: Identity) -> Identity:
    """Raises a ValueError where C2PA does not accept a certificate; gives ``identity`` back."""
    from PIL import Image

    trial = io.BytesIO()
    Image.new("L", (1, 1)).save(trial, format="PNG")
    sign(trial.getvalue(), identity, {}, title="a trial")
    return identity


def _manifest(facts: Mapping[str, object], title: str, edited: bool, opened: bool) -> dict[str, Any]:
    agent = {"name": "gesso", "version": version("gesso")}
    actions: list[dict[str, Any]] = [{"action": "c2pa.created", "digitalSourceType": GENERATED, "softwareAgent": agent}]
    if edited:
        actions = [
            {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}},
            {"action": "c2pa.edited", "digitalSourceType": EDITED, "softwareAgent": agent},
        ][: 1 if opened else 2]
    return {
        "claim_generator_info": [agent],
        "title": title,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": ASSERTION, "data": _legible(facts)},
        ],
    }


def _legible(value: object) -> object:
    """Plain data with lists of numbers as text: readers take them for bytes, and show something else."""
    if isinstance(value, Mapping):
        return {name: _legible(one) for name, one in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if value and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        return ", ".join(str(one) for one in value)
    return [_legible(one) for one in value]


def _builder(manifest: dict[str, Any], parent: Parent | None, stack: ExitStack) -> c2pa.Builder:
    """The library's builder, with the parent and its credentials, as far as the library can read them."""
    if parent is None:
        return c2pa.Builder(manifest, context())
    entry = {"title": parent.name, "relationship": "parentOf", "label": "parent"}
    content = parent.content
    stream = io.BytesIO(content) if isinstance(content, bytes) else stack.enter_context(content.open("rb"))
    mime = mime_of(stream.read(16))
    stream.seek(0)
    if mime is not None:
        builder = c2pa.Builder(manifest, context())
        try:
            builder.add_ingredient(json.dumps(entry), mime, stream)
            return builder
        except c2pa.C2paError:
            # A stranger's file whose credentials are too broken to be taken over: it is named without them.
            builder.close()
    return c2pa.Builder({**manifest, "ingredients": [{**entry, "format": mime or "image/*"}]}, context())
