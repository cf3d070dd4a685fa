"""What stands before every request: who may come in, how much they may bring, and how many at a time."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections import Counter
from collections.abc import Callable, Collection

from gesso.common.extras import needing
from gesso.common.text import binary_size
from launch.serving.options import ServeOptions

with needing("serve"):
    from fastapi import HTTPException
    from fastapi.responses import JSONResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What is told nobody's secrets: the page, its documentation, and whether the server is well.
OPEN = frozenset({"/", "/health", "/docs", "/openapi.json"})
OPEN_FOLDER = "/static-offline-docs/"
#: What is still read of a request that is refused, so that its sender hears why.
_DRAIN_SECONDS, _DRAIN_BYTES = 5.0, 64 * 2**20


class Guard:
    """ASGI middleware.

    Args:
        app: what it stands before.
        options: the limits.
        models: names of the models.
        pace: seconds that a model needs for a request, by its name.
        watch: is told of each request: model, verb, status, seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        options: ServeOptions,
        models: Collection[str],
        pace: Callable[[str], float],
        watch: Callable[[str, str, int, float], None],
    ) -> None:
        self.app, self.options, self.models, self.pace, self.watch = app, options, models, pace, watch
        #: Requests under way, by model.
        self.under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        path: str = scope["path"]
        if not (path in OPEN or path.startswith(OPEN_FOLDER) or self._knows_token(headers.get(b"authorization"))):
            line = "this server asks for its token: send the header `Authorization: Bearer TOKEN`"
            return await _refuse(401, line, scope, receive, send, {"WWW-Authenticate": "Bearer"})
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        model, verb = self._named(path)
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._post(model, headers.get(b"content-length", b""), scope, receive, noting)
        finally:
            if model:
                self.watch(model, verb, status, time.perf_counter() - started)

    async def _post(self, model: str, length: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        if length.isdigit() and int(length) > self.options.max_body:
            return await _refuse(413, self._too_large(), scope, receive, send)
        if self.under_way[model] >= self.options.queue:
            seconds = max(1, math.ceil(self.pace(model) * self.under_way[model]))
            line = f"{self.under_way[model]} requests are under way already: come again in {seconds} s"
            return await _refuse(503, line, scope, receive, send, {"Retry-After": str(seconds)})
        self.under_way[model] += 1
        try:
            await self.app(scope, self._limited(receive), send)
        finally:
            self.under_way[model] -= 1

    def _limited(self, receive: Receive) -> Receive:
        """The request's body up to the limits of its size and time."""
        brought, ends, whole = 0, time.monotonic() + self.options.upload, False

        async def limited() -> Message:
            nonlocal brought, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, ends - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, f"the request took longer than {self.options.upload:g} s to arrive") from None
            brought += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if brought > self.options.max_body:
                raise HTTPException(413, self._too_large())
            return message

        return limited

    def _knows_token(self, header: bytes | None) -> bool:
        if not self.options.token:
            return True
        kind, _, token = (header or b"").partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self.options.token.encode())

    def _named(self, path: str) -> tuple[str, str]:
        """The model and the verb of ``/models/NAME/VERB``; empty: no model of this server."""
        parts = path.split("/")
        known = len(parts) == 4 and parts[1] == "models" and parts[2] in self.models
        verb = parts[3] if known and parts[3] in ("generate", "stylize", "translate") else "unknown"
        return (parts[2], verb) if known else ("", "")

    def _too_large(self) -> str:
        return f"the request is larger than {binary_size(self.options.max_body)}"


async def _refuse(
    status: int, line: str, scope: Scope, receive: Receive, send: Send, headers: dict[str, str] | None = None
) -> None:
    """Answers with one line, and ends the connection: what is left of the request is not waited for."""
    response = JSONResponse({"detail": line}, status, {**(headers or {}), "Connection": "close"})
    if scope["method"] == "POST":
        await _drain(receive)
    await response(scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Reads what a refused request still sends: a sender that is cut off in the middle never sees the answer."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
