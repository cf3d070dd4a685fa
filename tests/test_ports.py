"""Ports of tests: reserved against every other process, open to the server that they are for."""

from __future__ import annotations

import socket

from tests import ports


def test_a_port_is_given_once_and_its_server_may_listen() -> None:
    (port,) = ports.free_ports(1)
    assert not ports._reserve(port)
    with socket.create_server(("", port)):
        assert not ports._reserve(port)
    with socket.socket() as other:
        # As the system's own connections do.
        try:
            other.bind(("", port))
        except OSError:
            return
    raise AssertionError("a socket that does not reuse addresses got a reserved port")


def test_ports_in_a_row_are_reserved_all() -> None:
    first = ports.free_ports_from(5)
    assert not any(map(ports._reserve, range(first, first + 5)))
