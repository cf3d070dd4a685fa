"""Words and figures for people."""

from __future__ import annotations

import os

import pytest

from gesso.common.text import binary_size, decode_text, one_line, printable


def test_one_line() -> None:
    assert one_line("a\n  b\t c \n") == "a b c"
    assert one_line(ValueError("a\nb")) == "a b"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert one_line("") == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (10 * 2**20, "10.0 MiB"), (2**50, "1048576.0 GiB")],
)
def test_binary_size(count: int | None, text: str) -> None:
    assert binary_size(count) == text


def test_text_of_strangers() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decode_text("Kätzchen 猫\r\n".encode(encoding)) == "Kätzchen 猫\r\n"
    assert decode_text(b"") == ""
    assert decode_text("café".encode("latin-1")) is None
    assert decode_text("no mark".encode("utf-16-le")) is None


def test_names_that_are_no_text() -> None:
    assert printable(os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x88")) == "caf\\xe9 🐈"
    printable(os.fsdecode(bytes(range(1, 256)))).encode()  # any file can hold it
