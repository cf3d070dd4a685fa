"""Remote reading, against a server that breaks off, is busy, has no ranges, or lies."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from gesso.common import remote
from gesso.common.remote import RemoteError, is_remote, local_path, open_remote

BODY = hashlib.shake_256(b"body").digest(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``BODY`` with the faults that are in ``faults``, one an answer; remembers which ranges were asked for."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.always = ""
        self.ranges = True
        self.grown = 0
        self.tag = '"1"'
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers.get("Range")))
                self.answer(server.faults.pop(0) if server.faults else server.always)

            def answer(self, fault: str) -> None:
                if fault.isdecimal():
                    self.send_response(int(fault))
                    self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "reset":
                    self.close_connection = True
                    return
                asked = self.headers.get("Range") if server.ranges else None
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                whole = BODY + bytes(server.grown)
                body = whole[start:]
                self.send_response(206 if asked else 200)
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", server.tag)
                self.end_headers()
                if fault == "cut":
                    body = body[: len(body) // 2]
                    self.close_connection = True
                if fault == "replace":
                    body, server.tag = body[: len(body) // 2], '"2"'
                    self.close_connection = True
                if fault == "grow":
                    body, server.grown = body[: len(body) // 2], 10
                    self.close_connection = True
                self.wfile.write(body)

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a.tar"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def read(url: str, **options: Any) -> bytes:
    with open_remote(url, **options) as stream:
        return b"".join(iter(lambda: stream.read(7_001), b""))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("faults", [[], ["cut"], ["503", "429", "reset", "cut", "502", "cut"], ["cut"] * 12])
def test_every_byte_comes_once_and_in_order(server: Server, faults: list[str], ranges: bool) -> None:
    if len(faults) > 10 and not ranges:
        pytest.skip("half of the whole each time is no progress")
    server.faults, server.ranges = list(faults), ranges
    assert read(server.url) == BODY
    assert len(server.asked) == len(faults) + 1
    if faults == ["cut"]:
        assert server.asked[1] == ("/a.tar", f"bytes={len(BODY) // 2}-")


def test_a_server_that_never_gives_the_rest_is_given_up(server: Server) -> None:
    server.always, server.ranges = "cut", False
    with pytest.raises(RemoteError, match=r"a\.tar: cannot be read \(the connection broke off after 150,000 of 300,0"):
        read(server.url)
    assert len(server.asked) == remote.ATTEMPTS


@pytest.mark.parametrize(("fault", "asked", "words"), [("404", 1, "HTTP 404"), ("503", 5, "HTTP 503.*5 times")])
def test_what_another_try_may_change_is_tried_again(server: Server, fault: str, asked: int, words: str) -> None:
    server.always = fault
    with pytest.raises(RemoteError, match=rf"a\.tar: cannot be read \({words}"):
        open_remote(server.url)
    assert len(server.asked) == asked


def test_a_file_replaced_meanwhile_is_not_glued_together(server: Server) -> None:
    server.faults, server.ranges = ["replace"], False
    with pytest.raises(RemoteError, match="replaced while it was read"):
        read(server.url)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_of_another_length_is_another_file(server: Server, ranges: bool) -> None:
    server.faults, server.ranges = ["grow"], ranges
    with pytest.raises(RemoteError, match="it had 300,000 bytes, and now has 300,010: replaced while it was read"):
        read(server.url)


def test_blanks_and_passwords(server: Server) -> None:
    assert read(server.url.replace("//", "//me:se%40cret@").replace("a.tar", "ä b{1}.tar")) == BODY
    assert server.asked[0][0] == "/%C3%A4%20b%7B1%7D.tar"


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9/x\.tar: cannot be read \(Connection refused"):
        open_remote("http://127.0.0.1:9/x.tar")


@pytest.mark.process
def test_a_command_that_fails_says_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    assert read("pipe:printf abc") == b"abc"
    with pytest.raises(RemoteError, match=r"the command ended with exit code 3"):
        read("pipe:printf abc; exit 3")


def test_what_is_remote() -> None:
    assert [is_remote(url) for url in ("/a b/c.tar", "file:///a%20b", "http://a/b", "pipe:cat x", "s3://a/b")] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert str(local_path("file:///a%20b/c.tar")) == "/a b/c.tar"
    assert str(local_path("/a%20b/{c}.tar")) == "/a%20b/{c}.tar"


def test_a_proxy_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that fails, whatever the URL; its password stays out of the message."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY"):
            with monkeypatch.context() as patch:
                patch.setenv(name, f"http://me:secret@{place}")
                # Python asks for the proxies once in a process.
                patch.setattr(urllib.request, "_opener", None)
                said = rf"refused, through the proxy {place} of {name}; tried"
                with pytest.raises(RemoteError, match=said) as caught:
                    open_remote("http://192.0.2.1/x.tar", attempts=1)
                assert "secret" not in str(caught.value)
                # Not where it is asked for no proxy.
                patch.setenv("no_proxy", "127.0.0.1")
                with pytest.raises(RemoteError, match="x.tar: cannot be read ((?!proxy).)*$"):
                    open_remote(f"http://{place}/x.tar", attempts=1)


@pytest.mark.parametrize(("code", "blamed"), [("407", True), ("404", False), ("503", True)])
def test_what_a_proxy_answers_is_told_from_the_servers_answer(
    server: Server, code: str, blamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.always = code
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{server.server_port}")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(RemoteError, match=f"HTTP {code}") as caught:
        open_remote("http://192.0.2.1/x.tar", attempts=1)
    assert ("of http_proxy" in str(caught.value)) == blamed
