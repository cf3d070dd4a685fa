"""Local and remote shards: what is read, what is refused, what is cached."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gesso
from datamodules.manifest import Manifest
from datamodules.streaming import cache, reader
from datamodules.streaming.cache import ShardCache
from datamodules.streaming.reader import ShardReader
from tests.datamodules.shardset import Sample, numbered, write_shards

SHARDS = [[Sample(numbered(10 * shard + n), n, f"caption {n}") for n in range(10)] for shard in range(4)]


class Server(ThreadingHTTPServer):
    """Serves a folder, and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                asked.append(self.path)
                super().do_GET()

        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def remote(server: Server, tmp_path: Path) -> Manifest:
    return write_shards(tmp_path / "served", urls=server.url + "/{}", train=SHARDS)


@pytest.fixture
def store(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache")


def check(samples: ShardReader) -> None:
    for number in np.random.default_rng(0).permutation(40).tolist():
        assert samples.image(number) == numbered(number)
    assert samples.captions(np.arange(40)) == [f"caption {number % 10}" for number in range(40)]


@pytest.mark.parametrize("urls", ["{}", "{root}/{}", "file://{root}/{}"])
def test_local_shards_are_read_in_place(tmp_path: Path, urls: str, store: ShardCache) -> None:
    root = tmp_path / "set with blank"
    manifest = write_shards(
        root, urls=urls.replace("{root}", str(root).replace(" ", "%20" if ":" in urls else " ")), train=SHARDS
    )
    check(ShardReader(manifest, "train", cache=store))
    assert not store.folder.exists()


def test_http_shards_are_fetched_once_and_checked(remote: Manifest, server: Server, store: ShardCache) -> None:
    samples = ShardReader(remote, "train", cache=store)
    with ThreadPoolExecutor(8) as pool:  # all want all shards at once
        list(pool.map(samples.prepare, [np.arange(40)] * 8))
    check(samples)
    check(ShardReader(remote, "train", cache=store))
    assert sorted(server.asked) == [f"/train-{n:06d}.tar" for n in range(4)]
    assert len(list(store.folder.glob("*/*.tar"))) == 4
    assert not list(store.folder.glob("*/*.partial"))


def test_http_that_is_not_there(remote: Manifest, tmp_path: Path, store: ShardCache) -> None:
    (tmp_path / "served" / "train-000002.tar").unlink()
    with pytest.raises(OSError, match=r"http://.*train-000002\.tar: cannot be read .*404") as caught:
        ShardReader(remote, "train", cache=store).image(25)
    assert "\n" not in str(caught.value)


def test_http_shard_that_changed(remote: Manifest, tmp_path: Path, store: ShardCache) -> None:
    shard = tmp_path / "served" / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"train-000001\.tar: .* sha256 .*gesso shards index"):
        ShardReader(remote, "train", cache=store).image(15)
    assert not list(store.folder.glob("*/*.tar*[!k]"))  # nothing but lock files


def test_a_full_disk_is_not_tried_again(remote: Manifest, store: ShardCache, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def full(url: str, partial: Path) -> tuple[int, str]:
        attempts.append(url)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_copy", full)
    with pytest.raises(OSError, match="disk is full.*GESSO_CACHE"):
        ShardReader(remote, "train", cache=store).image(3)
    assert len(attempts) == 1


@pytest.mark.process
def test_pipes_run_only_when_allowed(tmp_path: Path, store: ShardCache) -> None:
    witness = tmp_path / "witness"
    manifest = write_shards(tmp_path / "set", urls=f"pipe:touch {witness}; cat {tmp_path}/set/{{}}", train=SHARDS)
    with pytest.raises(ValueError, match="runs commands.*allow_pipe true"):
        ShardReader(manifest, "train", cache=store)
    assert not witness.exists()
    check(ShardReader(manifest, "train", cache=store, allow_pipe=True))
    assert witness.exists()
    with pytest.raises(ValueError, match=r"gesso\.stream: allow_pipe=True"):
        gesso.stream(manifest.root, 1, size=4)
    assert gesso.stream(manifest.root, 1, size=4, allow_pipe=True).manifest.root == manifest.root


def test_the_shards_longest_unused_make_room(remote: Manifest, server: Server, tmp_path: Path) -> None:
    size = remote.split("train").shards[0].bytes
    store = ShardCache(tmp_path / "cache", limit_bytes=3.5 * size)
    samples = ShardReader(remote, "train", cache=store)
    for shard, age in ((0, 300), (1, 200), (2, 100)):
        file = store.fetch(remote.split("train").shards[shard], f"{server.url}/train-{shard:06d}.tar")
        os.utime(file, (file.stat().st_atime - age, file.stat().st_mtime - age))
    assert samples.image(5) == numbered(5)  # shard 0: used just now, and open
    assert samples.image(35) == numbered(35)
    kept = {file.stem for file in store.folder.glob("*/*.tar")}
    assert kept == {remote.split("train").shards[shard].sha256 for shard in (0, 2, 3)}
    assert samples.image(15) == numbered(15)
    assert server.asked.count("/train-000001.tar") == 2


def test_an_open_shard_outlives_its_eviction(remote: Manifest, store: ShardCache) -> None:
    samples = ShardReader(remote, "train", cache=store)
    samples.image(0)
    for file in store.folder.glob("*/*.tar"):
        file.unlink()
    assert samples.image(1) == numbered(1)


def test_a_cache_that_cannot_be_written_names_its_variable(remote: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write there .*GESSO_CACHE"):
        ShardReader(remote, "train", cache=ShardCache(tmp_path / "file" / "shards")).image(3)


def test_a_cache_that_others_filled_is_read_where_it_cannot_be_written(
    remote: Manifest, store: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(ShardReader(remote, "train", cache=store))

    def refuse(path: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    check(ShardReader(remote, "train", cache=store))


def test_limit_of_the_cache_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESSO_SHARD_CACHE_GB", "1.5")
    assert ShardCache(tmp_path).limit_bytes == 1.5e9
    monkeypatch.setenv("GESSO_SHARD_CACHE_GB", "much")
    with pytest.raises(ValueError, match="GESSO_SHARD_CACHE_GB=much"):
        ShardCache(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, train=SHARDS)
    (tmp_path / "train-000003.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000003\.tar: this shard is missing.*gesso shards verify"):
        ShardReader(manifest, "train").image(39)


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_shards(tmp_path, train=[[Sample(numbered(n))] for n in range(40)])
    monkeypatch.setattr(reader, "_MAX_OPEN", 5)
    samples = ShardReader(manifest, "train")
    before = len(os.listdir("/proc/self/fd"))
    for number in [*range(40), *range(40)]:
        assert samples.image(number) == numbered(number)
        assert len(os.listdir("/proc/self/fd")) <= before + 5
    del samples
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_file_that_drops_out_of_the_table_stays_open_while_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MAX_OPEN", 0)  # as if another thread opened others at every moment
    samples = ShardReader(write_shards(tmp_path, train=SHARDS), "train")
    spans = samples.prepare(np.arange(40))
    assert [samples.read(span) for span in spans] == [numbered(number) for number in range(40)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in its page cache")
def test_what_is_prepared_waits_in_memory(tmp_path: Path) -> None:
    padded = [Sample(numbered(n) + bytes(1 << 20)) for n in range(10)]
    samples = ShardReader(write_shards(tmp_path, train=[padded]), "train")
    with (tmp_path / "train-000000.tar").open("rb") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
            if any(resident(memory)):
                pytest.skip("this file system holds all of its files in memory")
            spans = [(int(row["offset"]), int(row["offset"] + row["length"])) for row in samples.index[[3, 7]]]
            pages = [page for start, end in spans for page in range(start // mmap.PAGESIZE, end // mmap.PAGESIZE)]
            deadline = time.monotonic() + 60
            while not all(resident(memory)[page] for page in pages):
                assert time.monotonic() < deadline
                samples.prepare(np.array([3, 7]))  # again, since a kernel short of memory forgets what it was asked for
                time.sleep(0.1)
            assert sum(resident(memory)) < 2 * len(pages)


def resident(memory: mmap.mmap) -> bytes:
    """Of each of a mapped file's pages, 1 if it is in the page cache; asking does not bring it there."""
    pages = (ctypes.c_ubyte * -(-len(memory) // mmap.PAGESIZE))()
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(memory)), pages) == 0
    return bytes(page & 1 for page in pages)
