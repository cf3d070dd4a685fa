"""Who may come in: those with the token, which the printed address brings and a cookie keeps."""

from __future__ import annotations

import hmac
from urllib.parse import urlencode

from gesso.common.extras import needing

with needing("serve"):
    from starlette.datastructures import URL
    from starlette.requests import Request
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.types import ASGIApp, Receive, Scope, Send

HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


class Door:
    """ASGI middleware: other users of the machine reach its ports too, so nothing is shown without the token.

    An address with ``?token=`` is answered with a cookie and the same address without it. The cookie is sent by no
    other site's forms and scripts (SameSite), and no script reads it (HttpOnly).

    Args:
        app: what it stands before.
        token: what is asked for.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        if self._is(request.query_params.get("token", "")):
            return await self._with_cookie(request)(scope, receive, send)
        bearer = request.headers.get("authorization", "").partition(" ")
        given = (request.cookies.get(self._cookie(request.url), ""), bearer[2] if bearer[0].lower() == "bearer" else "")
        if any(self._is(one) for one in given):
            return await self.app(scope, receive, send)
        line = "open the address that `gesso ui` printed, with its token"
        await JSONResponse({"detail": line}, 401, {**HEADERS, "WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())

    def _with_cookie(self, request: Request) -> Response:
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        target = request.url.path + (f"?{urlencode(others)}" if others else "")
        # A path of two slashes would be another server's address.
        answer = RedirectResponse(f"/{target.lstrip('/')}", 303, HEADERS)
        answer.set_cookie(self._cookie(request.url), self.token, httponly=True, samesite="lax")
        return answer

    @staticmethod
    def _cookie(url: URL) -> str:
        """Browsers keep cookies by machine, not by port."""
        return f"gesso-ui-{url.port or 80}"
