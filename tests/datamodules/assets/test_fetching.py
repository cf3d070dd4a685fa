"""The cache against damage, races, hostile archives and a machine with no way out."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules.assets import fetching as module
from datamodules.assets.fetching import Asset, Source, assets, fetch, is_cached, verify
from datamodules.assets.mirrors import Download, FetchError, take_members
from gesso.cli.main import main


def sum_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GESSO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GESSO_OFFLINE", raising=False)
    return tmp_path / "cache"


class Site:
    """A web server with files, which counts what is asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                body = site.files.get(self.path[1:])
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def download(self, name: str, data: bytes) -> Download:
        self.files[name] = data
        return Download("url", f"{self.url}/{name}", sum_of(data), len(data))


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


def offer(monkeypatch: pytest.MonkeyPatch, asset: Asset) -> None:
    monkeypatch.setattr(module, "assets", lambda: {asset.name: asset})


def one_file(site: Site, data: bytes = b"weights" * 1000) -> Asset:
    download = site.download("weights.bin", data)
    return Asset("toy", "weights", "", {"weights.bin": sum_of(data)}, (Source((download,), (), None),))


def test_fetches_once(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, one_file(site))
    assert not is_cached("toy")
    assert fetch("toy", progress=False).read_bytes() == b"weights" * 1000
    fetch("toy", progress=False)
    assert site.asked == ["/weights.bin"]
    assert is_cached("toy")
    assert sorted(path.name for path in (cache / "assets").iterdir()) == ["toy", "toy.json", "toy.lock"]


@pytest.mark.parametrize("damage", [b"", b"weights" * 999, b"WEIGHTS" * 1000])
def test_corrupt_entry_is_fetched_anew_and_said(
    damage: bytes, cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, one_file(site))
    path = fetch("toy", progress=False)
    path.write_bytes(damage)
    assert fetch("toy", progress=False).read_bytes() == b"weights" * 1000
    assert "weights.bin is corrupt" in capsys.readouterr().err
    assert len(site.asked) == 2


def test_damage_that_keeps_length_and_time_is_found_by_verify(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, one_file(site))
    path = fetch("toy", progress=False)
    time = path.stat().st_mtime_ns
    path.write_bytes(b"WEIGHTS" * 1000)
    os.utime(path, ns=(time, time))
    assert main(["fetch", "--verify"]) == 0
    assert "corrupt" in capsys.readouterr().err
    assert path.read_bytes() == b"weights" * 1000
    assert verify("toy")


def test_copied_cache_is_good_without_fetching(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offer(monkeypatch, one_file(site))
    fetch("toy", progress=False)
    elsewhere = tmp_path / "elsewhere" / "assets" / "toy"
    elsewhere.mkdir(parents=True)
    (elsewhere / "weights.bin").write_bytes(b"weights" * 1000)
    monkeypatch.setenv("GESSO_CACHE", str(tmp_path / "elsewhere"))
    assert fetch("toy", progress=False) == elsewhere / "weights.bin"
    assert len(site.asked) == 1


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES])
def test_a_cache_that_can_be_read_alone_serves_what_it_holds(
    refusal: int, cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, one_file(site))
    path = fetch("toy", progress=False)
    os.utime(path, ns=(0, 0))

    def refuse(file: object) -> None:
        raise OSError(refusal, os.strerror(refusal), str(file))

    monkeypatch.setattr(module, "FileLock", refuse)
    assert fetch("toy", progress=False) == path
    assert len(site.asked) == 1
    # What is damaged is no use, and stays for whoever may write.
    path.write_bytes(b"WEIGHTS" * 1000)
    with pytest.raises(OSError, match="cannot write there .*; set GESSO_CACHE to a folder of your own"):
        fetch("toy", progress=False)
    assert path.is_file()


def test_wrong_bytes_are_refused_and_the_next_source_serves(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = one_file(site)
    bad = Download("url", f"{site.url}/other.bin", sum_of(b"weights" * 1000), 7000)
    site.files["other.bin"] = b"malware"
    offer(monkeypatch, Asset("toy", "weights", "", good.files, (Source((bad,), (), None), *good.sources)))
    assert fetch("toy", progress=False).read_bytes() == b"weights" * 1000
    assert site.asked == ["/other.bin", "/weights.bin"]


@pytest.mark.process
def test_no_way_out_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    dead = Download("url", "http://127.0.0.1:9/weights.bin", "0" * 64, 1)
    npm = Download("npm", "toy@1", "0" * 64, 1)
    pip = Download("wheel", "toy==1", "0" * 64, 1)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    offer(
        monkeypatch, Asset("toy", "weights", "", {}, tuple(Source((source,), (), None) for source in (dead, npm, pip)))
    )
    assert main(["fetch", "toy"]) == 1
    said = capsys.readouterr().err
    for part in ("127.0.0.1:9", "no npm client", "toy==1", "machine with a way out", "GESSO_CACHE", str(cache)):
        assert part in said
    assert said.count("\n") == 1
    assert [path.name for path in (cache / "assets").iterdir()] == ["toy.lock"]


def test_offline_skips_the_official_url(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, one_file(site))
    monkeypatch.setenv("GESSO_OFFLINE", "1")
    with pytest.raises(RuntimeError, match="GESSO_OFFLINE"):
        fetch("toy", progress=False)
    assert site.asked == []


def test_several_processes_fetch_once(cache: Path, site: Site, tmp_path: Path) -> None:
    """Four processes start at once; the server is asked for one copy and all see it whole."""
    download = site.download("weights.bin", b"weights" * 100_000)
    script = tmp_path / "rank.py"
    script.write_text(f"""
from datamodules.assets import fetching as module
from datamodules.assets.mirrors import Download
source = module.Source((Download("url", {download.spec!r}, {download.sha256!r}, {download.bytes}),), (), None)
toy = module.Asset("toy", "weights", "", {{"weights.bin": {download.sha256!r}}}, (source,))
module.assets = lambda: {{"toy": toy}}
print(len(module.fetch("toy", progress=False).read_bytes()))
""")
    ranks = [subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [rank.communicate()[0].strip() for rank in ranks] == ["700000"] * 4
    assert site.asked == ["/weights.bin"]


def wheel(folder: Path, content: bytes) -> bytes:
    """A minimal wheel that pip accepts, carrying one file."""
    file = folder / "toy-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toy/weights.bin", content)
        archive.writestr("toy-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
        archive.writestr("toy-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.dist-info/RECORD", "")
    return file.read_bytes()


@pytest.mark.process
def test_package_mirror(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = wheel(tmp_path, b"weights")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    download = Download("wheel", "toy==1", sum_of(data), len(data))
    files = {"model.bin": sum_of(b"weights")}
    offer(monkeypatch, Asset("toy", "weights", "", files, (Source((download,), ("toy/weights.bin",), None),)))
    assert fetch("toy", progress=False) == cache / "assets" / "toy" / "model.bin"

    monkeypatch.setenv("GESSO_CACHE", str(tmp_path / "second"))
    wheel(tmp_path, b"malware")
    with pytest.raises(RuntimeError, match=r"toy==1: .*(?i:hash)"):
        fetch("toy", progress=False)


def test_members_never_leave_their_folder(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("data/../../escaped.jpg", "/absolute.jpg", "data/good.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"good"))
        link = tarfile.TarInfo("data/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    take_members(archive, ("*.jpg",), folder)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {
        archive,
        *(folder / name for name in ("escaped.jpg", "absolute.jpg", "good.jpg")),
    }
    with pytest.raises(FetchError, match="no data/missing.jpg"):
        take_members(archive, ("data/missing.jpg",), folder)


def test_unknown_name_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "mnits"]) == 2
    assert "mnist" in capsys.readouterr().err
    assert main(["fetch"]) == 2
    assert "--list" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in assets())


# md5 of MNIST's raw files as torchvision and others publish them; our table holds sha256 of what the mirror gave.
PUBLISHED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.mark.network
@pytest.mark.parametrize("name", PUBLISHED)
def test_mnist_is_what_its_authors_publish(name: str) -> None:
    assert hashlib.md5((fetch("mnist", progress=False) / name).read_bytes()).hexdigest() == PUBLISHED[name]


@pytest.mark.slow
def test_the_package_mirror_serves_real_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESSO_OFFLINE", "1")
    assert fetch("mobilenet_v2", progress=False).name == "mobilenet_v2-b0353104.pth"
    assert fetch("adain_decoder", progress=False).stat().st_size == 14_023_458
