"""Shows pictures as they are made in a browser: motion JPEG on a port of this machine, which needs no display here."""

from __future__ import annotations

import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gesso.common.pixels import to_uint8

BOUNDARY = "picture"
QUALITY = 90
PAGE = b"""<!doctype html><meta charset="utf-8"><title>gesso</title>
<style>body{margin:0;background:#222}img{width:100vw;height:100vh;object-fit:contain}</style>
<img src="stream" alt="the stylised pictures">
"""


class Viewer:
    """Serves the newest picture to any number of browsers on this machine; slow ones miss some.

    The address holds a secret word, as anybody with an account on the machine can open its ports.

    Args:
        port: 0: any free one.

    Attributes:
        url: where the pictures are to be seen.

    Raises:
        OSError: the port cannot be opened.
    """

    def __init__(self, port: int = 0) -> None:
        self._word = secrets.token_urlsafe(9)
        self._changed = threading.Condition()
        self._number = 0
        self._pixels: NDArray[np.uint8] | None = None
        self._closed = False
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise OSError(
                error.errno, f"port {port} cannot be opened ({error.strerror}): give another with --live-port"
            ) from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/{self._word}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True, name="viewer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, picture: Tensor) -> None:
        """The next picture: [1, 3, H, W] in [-1, 1]."""
        pixels = to_uint8(picture)[0].permute(1, 2, 0).contiguous().cpu().numpy()
        with self._changed:
            self._pixels = pixels
            self._number += 1
            self._changed.notify_all()

    def _next(self, seen: int) -> tuple[int, bytes] | None:
        """A picture newer than number ``seen``, as JPEG; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > seen or self._closed)
            if self._closed or self._pixels is None:
                return None
            number, pixels = self._number, self._pixels
        coded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        return number, coded.tobytes()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        viewer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == f"/{viewer._word}/":
                    self._send("text/html; charset=utf-8", PAGE)
                elif self.path == f"/{viewer._word}/stream":
                    self._stream()
                else:
                    self.send_error(404)

            def _send(self, kind: str, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                seen = 0
                try:
                    self.wfile.write(f"--{BOUNDARY}\r\n".encode())
                    while (found := viewer._next(seen)) is not None:
                        seen, coded = found
                        self.wfile.write(f"Content-Type: image/jpeg\r\nContent-Length: {len(coded)}\r\n\r\n".encode())
                        # The boundary after it, or browsers would show each picture when the next one comes.
                        self.wfile.write(coded + f"\r\n--{BOUNDARY}\r\n".encode())
                except OSError:
                    # The browser has gone.
                    pass

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler
