"""Reading from URLs: every byte once and in order, through connections that break off, busy servers and slow ones.

What fails for a while (no connection, 408, 429, 5xx, a body that ends early) is asked for again, each time later, from
the byte where it stopped. A server without byte ranges gives the whole again and what is known of it is passed over. As
long as bytes come, nothing is given up; a server that answers but never gives more is.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from gesso.common.text import one_line

#: Tries without a new byte before a URL is given up.
ATTEMPTS = 5
#: Seconds before the second try; each further one waits twice as long, or as long as the server asks for.
FIRST_WAIT = 0.5
#: Longest wait before a try, in seconds, whatever the server asks for.
LONGEST_WAIT = 30.0
#: Seconds without a byte after which a connection counts as broken.
TIMEOUT = 60.0

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

_BUSY = (408, 425, 429, 500, 502, 503, 504)
#: What proxies answer of themselves: they refuse, want a password, or do not reach the server.
_BY_PROXIES = (403, 407, 502, 503, 504)
_BROKEN = (OSError, http.client.HTTPException)
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"
_CHUNK = 1 << 20


class RemoteError(OSError):
    """A URL that cannot be read, in one line that names it. Has no ``errno``: no disk of ours is at fault."""


class _Refused(Exception):
    """An answer that another try would not change."""


def is_remote(url: str) -> bool:
    """Whether ``url`` must be fetched or run: ``scheme://`` but for ``file:``, or ``pipe:COMMAND``."""
    return url.startswith("pipe:") or ("://" in url and not url.startswith("file:"))


def local_path(url: str) -> Path | None:
    """The file that a path or ``file:`` URL names; None for what must be fetched or run."""
    if is_remote(url):
        return None
    return Path(url2pathname(urlsplit(url).path) if url.startswith("file:") else url)


def open_remote(url: str, *, attempts: int = ATTEMPTS, timeout: float = TIMEOUT) -> IO[bytes]:
    """Opens ``http:``, ``https:``, ``pipe:`` and what webdataset's opener knows for one reading from the start.

    Args:
        attempts: tries without a new byte before it is given up.
        timeout: seconds without a byte after which a connection counts as broken.

    Raises:
        RemoteError: at once or while it is read; names the URL.
    """
    stream = _RemoteStream(url, attempts, timeout)
    stream.connect()
    return io.BufferedReader(stream, _CHUNK)


class _Body(Protocol):
    """What is read of a response, or of a command's output."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> object: ...


@dataclass
class _Answer:
    """What came for a request: a body that begins at byte ``start``, of ``total`` bytes from 0 where that is known."""

    body: _Body
    start: int = 0
    total: int | None = None
    version: str | None = None


class _RemoteStream(io.RawIOBase):
    """The bytes behind a URL, one after the other, over as many connections as it takes."""

    def __init__(self, url: str, attempts: int, timeout: float) -> None:
        self._url = url
        self._attempts = attempts
        self._timeout = timeout
        self._answer: _Answer | None = None
        self._position = 0
        self._failures = 0
        self._ended = False
        self._version: str | None = None
        self._total: int | None = None

    def readable(self) -> bool:
        return True

    def connect(self) -> None:
        """Has a connection whose next byte is the one wanted."""
        while self._answer is None:
            try:
                answer = _request(self._url, self._position, self._timeout, self._version)
                self._check_version(answer)
                self._answer = answer
                _skip(answer, self._position)
            except _Refused as refusal:
                raise RemoteError(f"{self._url}: cannot be read ({refusal})") from refusal
            except _BROKEN as error:
                self._fail(error)

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ended:
            self.connect()
            try:
                data = self._next(len(view))
            except _BROKEN as error:
                self._fail(error)
                continue
            if data:
                self._failures = 0
                self._position += len(data)
                view[: len(data)] = data
                return len(data)
            self._ended = True
        return 0

    def _next(self, size: int) -> bytes:
        assert self._answer is not None
        read = getattr(self._answer.body, "read1", self._answer.body.read)
        data: bytes = read(size)
        total = self._answer.total
        if not data:
            if total is not None and self._position < total:
                raise ConnectionError(f"the connection broke off after {self._position:,} of {total:,} bytes")
            self._answer.body.close()  # a command's exit code shows here
        return data

    def close(self) -> None:
        self._drop()
        super().close()

    def _check_version(self, answer: _Answer) -> None:
        if self._position and self._version and answer.version and answer.version != self._version:
            raise _Refused("it was replaced while it was read")
        if self._position and None not in (self._total, answer.total) and answer.total != self._total:
            raise _Refused(f"it had {self._total:,} bytes, and now has {answer.total:,}: replaced while it was read")
        self._total = self._total if answer.total is None else answer.total
        self._version = answer.version or self._version

    def _drop(self) -> None:
        if self._answer is not None:
            with suppress(*_BROKEN):
                self._answer.body.close()
            self._answer = None

    def _fail(self, error: Exception) -> None:
        """Waits until the next try, or gives up."""
        self._drop()
        self._failures += 1
        reason = _in_words(error) + _through_proxy(self._url, error)
        if self._failures >= self._attempts:
            raise RemoteError(f"{self._url}: cannot be read ({reason}; tried {self._attempts} times)") from error
        wait = min(max(FIRST_WAIT * 2 ** (self._failures - 1), _asked_wait(error)), LONGEST_WAIT)
        if wait > 1:
            print(f"gesso: {self._url}: {reason}; trying again in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)


def _request(url: str, start: int, timeout: float, version: str | None) -> _Answer:
    if urlsplit(url).scheme not in ("http", "https"):
        from webdataset.gopen import gopen  # heavy, and few URLs need it

        return _Answer(gopen(url))
    address, headers = _address(url)
    headers["Accept-Encoding"] = "identity"  # offsets count the file's own bytes
    if start:
        headers["Range"] = f"bytes={start}-"
        if version and not version.startswith("W/"):
            headers["If-Range"] = version
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _BUSY:
            raise
        raise _Refused(_in_words(error) + _through_proxy(url, error)) from error
    except (ValueError, http.client.InvalidURL) as error:
        raise _Refused(str(error)) from error
    return _answer(response)


def _answer(response: http.client.HTTPResponse) -> _Answer:
    headers = response.headers
    version = headers.get("ETag") or headers.get("Last-Modified")
    announced = headers.get("Content-Length", "")
    length = int(announced) if announced.isdecimal() else None
    if response.status != 206:
        return _Answer(response, 0, length, version)
    first, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = first.partition("-")[0]
    if not start.isdecimal():
        response.close()
        raise _Refused("the server answers with a part and does not say which")
    total = int(whole) if whole.isdecimal() else None if length is None else int(start) + length
    return _Answer(response, int(start), total, version)


def _skip(answer: _Answer, position: int) -> None:
    """Reads up to byte ``position`` of the whole."""
    if answer.start > position:
        raise _Refused("the server answers with another part than was asked for")
    missing = position - answer.start
    while missing:
        data = answer.body.read(min(missing, _CHUNK))
        if not data:
            raise ConnectionError(f"the connection broke off after {position - missing:,} bytes")
        missing -= len(data)


def _address(url: str) -> tuple[str, dict[str, str]]:
    """The URL as a request needs it, and headers: a name and password before the host become one of them."""
    parts = urlsplit(url)
    headers = {"User-Agent": "gesso"}
    user, at, host = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(user).encode()).decode()
        parts = parts._replace(netloc=host)
    return quote(urlunsplit(parts), safe=_URL_CHARACTERS, errors="surrogateescape"), headers


def _asked_wait(error: Exception) -> float:
    """Seconds that a busy server asks to wait, 0 where it does not say."""
    asked = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    return float(asked) if asked.isdecimal() else 0.0


def _through_proxy(url: str, error: Exception) -> str:
    """Names the proxy that stood between, and the variable that asks for it, where it may be at fault; else empty."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    answered = isinstance(error, urllib.error.HTTPError) and error.code not in _BY_PROXIES
    if not proxy or answered or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    named = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper())
    where = next((name for name in named if os.environ.get(name)), "the system's settings")
    # Without a name and password.
    place = (urlsplit(proxy).netloc or proxy).rpartition("@")[2]
    return f", through the proxy {place} of {where}"


def _in_words(error: Exception) -> str:
    """Why, without Python's tuples and curl's codes."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {one_line(error.reason)}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _in_words(error.reason)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected | ConnectionResetError):
        return "the connection broke off"
    text = str(error)
    if isinstance(error, OSError) and error.errno is None and ": exit " in text:  # webdataset's words for a command
        return f"the command ended with exit code {text.split(': exit ')[1].split()[0]}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(text.split()) or type(error).__name__
