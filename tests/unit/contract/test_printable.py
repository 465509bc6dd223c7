"""What of other people's words reaches a terminal."""

import pytest

from contract.printable import printable


@pytest.mark.parametrize("text", ["filler-1", "Verpackung für Ö", "naïve 数 💥", "[red]", ""])
def test_what_is_visible_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("line\r\nforged", "line\\r\\nforged"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("\x9b1m", "\\x9b1m"),
        ("a\u200bb", "a\\u200bb"),
    ],
)
def test_what_is_not_visible_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
