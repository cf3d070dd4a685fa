"""WebDataset tars of others, used where they are: one pass over each gives a manifest and an index."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datamodules.building.pool import Pool
from datamodules.building.progress import Bar
from datamodules.building.sources import expand_urls, open_url
from datamodules.building.tars import TarScan, class_names
from datamodules.decoding.images import BadImage, read_header
from datamodules.manifest import INDEX_DTYPE, MANIFEST_NAME, Manifest, Shard, write_index


@dataclass
class _Indexed:
    """What one pass over a tar found."""

    shard: Shard
    rows: np.ndarray
    labels: list[str | None]
    shapes: set[tuple[int, int, int]] = field(default_factory=set)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    without_image: int = 0


def index(
    urls: Mapping[str, Sequence[str]],
    out: str | os.PathLike[str],
    *,
    workers: int = 4,
    progress: bool = True,
) -> Manifest:
    """Makes a shard set of tars that stay where they are.

    Images are ``.jpg``, ``.jpeg``, ``.png`` or ``.webp`` members; labels come from ``.cls`` or ``.json`` ("label" or
    "class"), captions from ``.txt``. Images without a readable header are left out; none is decoded.

    Args:
        urls: split -> paths, globs, brace expansions, ``http(s):``, ``file:`` or ``pipe:`` URLs.
        out: a new folder for the manifest and the indices.
        workers: tars read at a time.

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
    with Bar(progress) as bar, Pool(min(workers, len(everything))) as pool:
        bar.start("index", len(everything))
        passes = []
        for result in pool.map(_index_tar, everything):
            passes.append(result)
            bar.advance(1)
        for result in passes:
            for key, reason in result.left_out:
                bar.say(f"{result.shard.url}: {key} left out: {reason}")
            if result.without_image:
                bar.say(f"{result.shard.url}: {result.without_image} samples without an image left out")
    return _assemble(folder, tars, passes)


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
        splits[split] = write_index(folder, split, [result.shard for result in results], rows)
    sizes = {shape[:2] for shape in shapes}
    manifest = Manifest(
        root=folder.resolve(),
        name=folder.resolve().name,
        channels=max(shape[2] for shape in shapes),
        size=sizes.pop() if len(sizes) == 1 else None,
        classes=names,
        captions=any(bool((result.rows["caption_length"] > 0).any()) for result in passes),
        splits=splits,
        provenance={"source": "tars used in place"},
    )
    manifest.save()
    return manifest


def _expanded(texts: Sequence[str]) -> list[str]:
    found = []
    for text in texts:
        matches = expand_urls(text)
        if not matches:
            raise FileNotFoundError(f"{text}: no such tar")
        found += [url if "://" in url or url.startswith("pipe:") else os.path.abspath(url) for url in matches]
    return found


def _index_tar(url: str) -> _Indexed:
    rows: list[tuple[int, int, int, int, int, int]] = []
    labels: list[str | None] = []
    shapes: set[tuple[int, int, int]] = set()
    left_out: list[tuple[str, str]] = []
    try:
        with open_url(url) as stream:
            scan = TarScan(stream, url)
            for sample, data in scan:
                try:
                    shapes.add(read_header(data))
                except BadImage as bad:
                    left_out.append((sample.key, str(bad)))
                    continue
                rows.append((sample.offset, sample.length, -1, sample.caption_offset, sample.caption_length, len(rows)))
                labels.append(sample.label)
    except OSError as error:
        raise OSError(f"{url}: cannot be read ({error.strerror or error})") from error
    shard = Shard(url, len(rows), scan.length, scan.sha256)
    return _Indexed(shard, np.array(rows, INDEX_DTYPE), labels, shapes, left_out, scan.without_image)
