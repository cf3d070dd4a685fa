"""Summary and verification of a shard set."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datamodules.building.pool import Pool
from datamodules.building.progress import Bar
from datamodules.building.sources import open_url
from datamodules.building.tars import LATENTS, TarScan
from datamodules.decoding.images import BadImage, read_image, resize_image
from datamodules.manifest import Manifest, count_classes
from datamodules.streaming.latents import latent_rows
from datamodules.streaming.reader import ShardReader, check_pipes
from gesso.common.files import writing_whole

CONTACT_SHEET = "contact_sheet.png"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_CELL, _GAP, _COLUMNS, _ROWS, _MARGIN = 96, 4, 12, 20, 120


@dataclass(frozen=True)
class Inspection:
    """Summary of a shard set.

    Args:
        splits: split -> samples, shards, bytes and mean bytes an image.
        classes: split -> class name -> samples; empty when unlabelled.
        sheet: the contact sheet's file; None: there is none of latents.
    """

    manifest: Manifest
    splits: dict[str, dict[str, float]]
    classes: dict[str, dict[str, int]]
    sheet: Path | None


def inspect(path: str | os.PathLike[str], *, allow_pipe: bool = False) -> Inspection:
    """Summarises a shard set, and writes ``contact_sheet.png`` of its first split beside the manifest.

    Where that folder is only to be read, it goes into the working directory, as ``NAME-contact_sheet.png``.

    Raises:
        OSError: it can be written in neither.
        FileNotFoundError, ValueError: no shard set, a damaged one, or one whose ``pipe:`` was not allowed.
    """
    manifest = Manifest.load(path)
    splits, classes = {}, {}
    for name, split in manifest.splits.items():
        rows = manifest.index(name)
        splits[name] = {
            "samples": split.samples,
            "shards": len(split.shards),
            "bytes": sum(shard.bytes for shard in split.shards),
            "bytes_per_image": float(rows["length"].mean()),
        }
        if manifest.classes:
            classes[name] = dict(zip(manifest.classes, manifest.class_counts(name), strict=True))
    if manifest.latents is not None:
        return Inspection(manifest, splits, classes, None)
    sheet = _contact_sheet(manifest, next(iter(manifest.splits)), allow_pipe)
    return Inspection(manifest, splits, classes, _write(sheet, manifest))


def _write(sheet: Image.Image, manifest: Manifest) -> Path:
    """Writes the contact sheet; returns its file."""
    beside = manifest.root / CONTACT_SHEET
    # A data set's name may hold anything.
    name = re.sub(r"[^\w.-]+", "-", manifest.name).strip("-.") or "shards"
    here = Path(f"{name}-{CONTACT_SHEET}")
    for file in (beside, here):
        try:
            with writing_whole(file) as partial:
                sheet.save(partial, format="PNG")
            return file
        except OSError as error:
            if error.errno not in _READ_ONLY or file == here:
                raise
    raise AssertionError("one of the two was returned or raised")


def verify(
    path: str | os.PathLike[str], *, workers: int | None = None, allow_pipe: bool = False, progress: bool = True
) -> list[str]:
    """Checks lengths and checksums of all shards and indices, the indices' entries, and that every image decodes.

    Returns:
        The problems, a line each; empty if there are none.
    """
    manifest = Manifest.load(path)
    problems: list[str] = []
    work: list[tuple[str, int]] = []
    for name, split in manifest.splits.items():
        check_pipes(manifest, name, allow_pipe)
        index_problem = _check_index(manifest, name)
        if index_problem:
            problems.append(index_problem)
        else:
            work += [(name, number) for number in range(len(split.shards))]
    workers = min(workers or os.cpu_count() or 1, max(1, len(work)))
    with Bar(progress) as bar, Pool(workers) as pool:
        bar.start("verify", sum(split.samples for split in manifest.splits.values()))
        for (name, number), found in zip(work, pool.map(partial(_check_shard, manifest), work), strict=True):
            problems += found
            bar.advance(manifest.split(name).shards[number].samples)
    return problems


def _check_index(manifest: Manifest, split: str) -> str | None:
    from gesso.common.files import sha256

    file = Path(manifest.resolve(manifest.split(split).index))
    if not file.is_file():
        return f"{file}: missing; build or index the set again"
    if sha256(file) != manifest.split(split).index_sha256:
        return f"{file}: checksum differs from the manifest's; build or index the set again"
    try:
        labels = manifest.index(split)["label"]
    except ValueError as error:
        return str(error)
    classes = len(manifest.classes)
    if (foreign := np.flatnonzero((labels < -1) | (labels >= classes) & (labels >= 0))).size:
        return (
            f"{file}: {len(foreign)} labels are none of the {classes} classes, the first is {labels[foreign[0]]} of "
            f"sample {foreign[0]}; build or index the set again"
        )
    if manifest.class_counts(split) != count_classes(manifest.index(split), classes):
        return (
            f"{file}: other numbers of samples by class than the manifest's class_counts; build or index the set again"
        )
    return None


def _check_shard(manifest: Manifest, place: tuple[str, int]) -> list[str]:
    """Checks one shard completely, in a worker."""
    split, number = place
    shards = manifest.split(split).shards
    shard = shards[number]
    url = manifest.resolve(shard.url)
    first = sum(before.samples for before in shards[:number])
    rows = {int(row["offset"]): row for row in manifest.index(split)[first : first + shard.samples]}
    problems = []
    try:
        with open_url(url) as stream:
            scan = TarScan(stream, url) if manifest.latents is None else TarScan(stream, url, LATENTS)
            for sample, data in scan:
                row = rows.pop(sample.offset, None)
                if row is None:
                    continue  # left out of the index because it does not decode
                place_of_it = f"{url}: sample {sample.key!r} at byte {sample.offset}"
                indexed = (row["length"], row["caption_offset"], row["caption_length"])
                if indexed != (sample.length, sample.caption_offset, sample.caption_length):
                    problems.append(f"{place_of_it}: the index says otherwise where it ends or where its caption is")
                try:
                    found = _shape(manifest, data)
                except BadImage as bad:
                    problems.append(f"{place_of_it}: {bad}")
                    continue
                if manifest.latents is not None:
                    continue
                if manifest.size not in (None, found[:2]):
                    problems.append(f"{place_of_it}: {found[1]} x {found[0]} pixels; the manifest says {manifest.size}")
                if found[2] > manifest.channels:
                    problems.append(f"{place_of_it}: in colour; the manifest says that all are grey")
    except OSError as error:
        return [*problems, f"{url}: cannot be read ({error.strerror or error})"]
    except ValueError as error:
        return [*problems, f"{error} (it should have {shard.bytes} bytes)"]
    if (scan.length, scan.sha256) != (shard.bytes, shard.sha256):
        problems.append(f"{url}: {scan.length} bytes with sha256 {scan.sha256}, not the manifest's {shard.bytes}")
    if rows:
        problems.append(f"{url}: {len(rows)} samples of the index are not in it, the first at byte {min(rows)}")
    return problems


def _shape(manifest: Manifest, data: bytes) -> tuple[int, ...]:
    """The shape of a sample; raises a BadImage where it is none."""
    if manifest.latents is None:
        return read_image(data).shape
    rows = latent_rows(manifest, flip=False)
    out = np.empty(rows.row_shape(manifest.channels), np.uint8)
    rows.render(data, out, [1.0])
    if not np.isfinite(out.view(np.float16)).all():
        raise BadImage("undecodable", "latents that are infinite or no numbers")
    return out.shape


def _contact_sheet(manifest: Manifest, split: str, allow_pipe: bool) -> Image.Image:
    """Rows of samples: one a class, named, or samples from the whole split where there are no classes or too many."""
    reader = ShardReader(manifest, split, allow_pipe=allow_pipe)
    labels = reader.index["label"]
    if 0 < len(manifest.classes) <= _ROWS:
        rows = [(name, np.flatnonzero(labels == number)) for number, name in enumerate(manifest.classes)]
    else:
        spread = np.linspace(0, len(labels) - 1, min(len(labels), _COLUMNS * 8)).astype(int)
        rows = [("", chunk) for chunk in np.array_split(spread, -(-len(spread) // _COLUMNS))]
    margin = _MARGIN if any(name for name, _ in rows) else _GAP
    font = ImageFont.load_default(size=14)
    size = (margin + _COLUMNS * (_CELL + _GAP), _GAP + len(rows) * (_CELL + _GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for line, (name, samples) in enumerate(rows):
        top = _GAP + line * (_CELL + _GAP)
        draw.text((_GAP * 2, top + _CELL // 2), name[:16], fill="black", anchor="lm", font=font)
        for column, sample in enumerate(samples[:_COLUMNS]):
            sheet.paste(_thumbnail(reader, int(sample)), (margin + column * (_CELL + _GAP), top))
    return sheet


def _thumbnail(reader: ShardReader, sample: int) -> Image.Image:
    try:
        image = read_image(reader.image(sample), 3)
    except BadImage:
        return Image.new("RGB", (_CELL, _CELL), "red")  # `verify` says what is wrong with it
    if max(image.shape[:2]) * 2 <= _CELL:  # whole multiples keep small pixels square
        factor = _CELL // max(image.shape[:2])
        image = image.repeat(factor, 0).repeat(factor, 1)
        framed = Image.new("RGB", (_CELL, _CELL), "white")
        framed.paste(Image.fromarray(image), ((_CELL - image.shape[1]) // 2, (_CELL - image.shape[0]) // 2))
        return framed
    return Image.fromarray(resize_image(image, _CELL, "center_crop"))
