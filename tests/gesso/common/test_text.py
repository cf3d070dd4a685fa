"""Words and figures for people."""

from __future__ import annotations

import pytest

from gesso.common.text import binary_size, one_line


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
