"""Indexes existing WebDataset tars without copying them: one pass over each makes a manifest and an index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datamodules.building.candidates import hidden_remark
from datamodules.building.labels import class_names, mixed_remark
from datamodules.building.locations import expand_urls, open_url
from datamodules.building.pool import Pool
from datamodules.building.progress import Bar
from datamodules.building.report import write_index_report
from datamodules.building.tars import LeftOut, TarScan
from datamodules.decoding.images import BadImage, read_header
from datamodules.manifest import INDEX_DTYPE, MANIFEST_NAME, Manifest, Shard, default_segments, write_index
from gesso.common.remote import RemoteError, is_remote


@dataclass
class _Indexed:
    """Result of one pass over a tar."""

    shard: Shard
    rows: np.ndarray
    labels: list[str | None]
    shapes: set[tuple[int, int, int]] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    hidden: int = 0
    remarks: list[str] = field(default_factory=list)


def index(
    urls: Mapping[str, Sequence[str]],
    out: str | os.PathLike[str],
    *,
    workers: int = 4,
    progress: bool = True,
) -> Manifest:
    """Makes a shard set of existing tars, which are not copied.

    Images are members with a picture's ending; labels come from ``.cls`` or ``.json`` ("label" or
    "class"), captions from ``.txt``. Images without a readable header are left out; none is decoded.

    Args:
        urls: split -> paths, globs, brace expansions, ``http(s):``, ``file:`` or ``pipe:`` URLs.
        out: a new folder for the manifest and the indices.
        workers: number of tars to read at a time.

    Raises:
        FileNotFoundError: a path matches nothing.
        ValueError: a truncated tar, or one without images; or the folder holds something.
        OSError: a URL cannot be read.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is not empty; name a new folder for {MANIFEST_NAME} and the indices")
    tars = {split: _expanded(texts) for split, texts in urls.items() if texts}
    everything = [url for names in tars.values() for url in names]
    _check_distinct(everything)
    with Bar(progress) as bar, Pool(min(workers, len(everything))) as pool:
        bar.start("index", len(everything))
        passes = []
        for result in pool.map(_index_tar, everything):
            passes.append(result)
            bar.advance(1)
        _check_contents([result.shard for result in passes])
        manifest = _assemble(folder, tars, passes)
        doubts = [line for result in passes for line in result.remarks]
        doubts += mixed_remark({label for result in passes for label in result.labels if label is not None})
        write_index_report(
            manifest,
            {result.shard.url: result.left_out for result in passes},
            {result.shard.url: result.notes for result in passes},
            hidden_remark(sum(result.hidden for result in passes)) + doubts,
        )
        for line in doubts:
            bar.print(f"{folder}: {line}")
        lost = sum(len(result.left_out) + len(result.notes) for result in passes)
        if lost:
            bar.print(f"{folder}: {lost:,} members left out or not understood: see {folder / 'report.txt'}")
    return manifest


def _assemble(folder: Path, tars: dict[str, list[str]], passes: list[_Indexed]) -> Manifest:
    names = class_names({label for result in passes for label in result.labels if label is not None})
    numbers = {name: number for number, name in enumerate(names)}
    shapes = set().union(*(result.shapes for result in passes))
    folder.mkdir(parents=True, exist_ok=True)
    splits, rest = {}, iter(passes)
    for split, urls in tars.items():
        results = [next(rest) for _ in urls]
        rows = np.concatenate([result.rows for result in results])
        rows["label"] = [numbers.get(label or "", -1) for result in results for label in result.labels]
        if not len(rows):
            raise ValueError(f"{urls[0]}: no image in it ({len(urls)} tars of split {split})")
        splits[split] = write_index(folder, split, [result.shard for result in results], rows, classes=len(names))
    sizes = {shape[:2] for shape in shapes}
    manifest = Manifest(
        root=folder.resolve(),
        name=folder.resolve().name,
        channels=max(shape[2] for shape in shapes),
        size=sizes.pop() if len(sizes) == 1 else None,
        classes=names,
        captions=any(bool((result.rows["caption_length"] > 0).any()) for result in passes),
        splits=splits,
        segments=default_segments(splits),
        provenance={"source": "tars used in place"},
    )
    manifest.save()
    return manifest


def _expanded(texts: Sequence[str]) -> list[str]:
    return [url if is_remote(url) else os.path.abspath(url) for text in texts for url in expand_urls(text)]


def _check_distinct(urls: Sequence[str]) -> None:
    """Checks that no tar is given twice: its images would count double, or be in two splits.

    Raises:
        ValueError: one is; names it.
    """
    twice = [url for url, count in Counter(urls).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]}: is named twice; a tar belongs to one split, once")


def _check_contents(shards: Sequence[Shard]) -> None:
    """Checks that no tar is a copy of another one: see ``_check_distinct``.

    Raises:
        ValueError: one is; names both.
    """
    seen: dict[str, str] = {}
    for shard in shards:
        first = seen.setdefault(shard.sha256, shard.url)
        if first != shard.url:
            raise ValueError(f"{shard.url}: holds the same bytes as {first}; leave one of them out")


def _index_tar(url: str) -> _Indexed:
    rows: list[tuple[int, int, int, int, int, int]] = []
    labels: list[str | None] = []
    shapes: set[tuple[int, int, int]] = set()
    left_out: list[LeftOut] = []
    notes: list[tuple[str, str]] = []
    try:
        with open_url(url) as stream:
            scan = TarScan(stream, url)
            for sample, data in scan:
                try:
                    shapes.add(read_header(data))
                except BadImage as bad:
                    left_out.append(LeftOut(sample.key, bad.reason, bad.detail))
                    continue
                rows.append((sample.offset, sample.length, -1, sample.caption_offset, sample.caption_length, len(rows)))
                labels.append(sample.label)
                if sample.note:
                    notes.append((sample.key, sample.note))
    except RemoteError:
        raise
    except OSError as error:
        raise OSError(f"{url}: cannot be read ({error.strerror or error})") from error
    shard = Shard(url, len(rows), scan.length, scan.sha256)
    index = np.array(rows, INDEX_DTYPE)
    return _Indexed(shard, index, labels, shapes, scan.left_out + left_out, notes, scan.hidden, scan.remarks)
