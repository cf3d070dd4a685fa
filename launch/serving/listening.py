"""A server's port, and its end by a signal."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Generator
from types import FrameType

from gesso.common.extras import needing

with needing("serve"):
    import uvicorn


class Server(uvicorn.Server):
    """Uvicorn's server, which on SIGTERM or SIGINT ends what is under way and then returns; a second one ends at once.

    Uvicorn's own raises the signal again at the end: the process would die by it instead of returning 0.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Context manager: the two signals stop the server; in another thread than the main one nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops the server, the second one does not wait."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listening_socket(host: str, port: int) -> socket.socket:
    """A server's socket, bound to its address; port 0: any free one.

    Raises:
        OSError: the port is taken, or there is no such address; one line.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        reason = f"{host}:{port}: {(error.strerror or str(error)).lower()}; choose another --port"
        raise OSError(error.errno, reason) from error
    return made


def address_of(listener: socket.socket) -> str:
    """Where a browser of this machine finds the server: ``http://localhost:8000/``."""
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
