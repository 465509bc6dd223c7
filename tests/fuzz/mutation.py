"""Damage to JSON messages: bytes flipped, cut, doubled and spliced, and values that want to be trouble."""

import json
import random
from collections.abc import Sequence
from typing import Any, Final

_TOKENS: Final = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e-999",
        b"9007199254740993",
        b"1" * 400,
        b"-0",
        b"0x10",
    ),
    *(b"null", b"true", b"[]", b"{}", b"[[[[[[", b'{"a":' * 5, b'""', b'"', b"\\", b"\\u0000", b"\\ud800"),
    *(
        b"\\ud83d\\ude00",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\x00",
        b"\xef\xbb\xbf",
        b",",
        b":",
        b"]",
        b"}",
    ),
    *(b'"state":"running",', b'"sequence":1,', b'"gateway":"gw-2",', b'"\\u0073tate":"idle",', b"// c\n"),
)
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**53, 2**53 + 1, -(2**63), 1e308, -1e308, 5e-324, 0.1, 1e11, 1e10),
    *(
        "",
        " ",
        "running",
        "Running",
        "1",
        "gw",
        "../gw",
        "a/b",
        "+",
        "#",
        "\x00",
        "x" * 257,
        "x" * 64,
        "x" * 65,
    ),
    *([], [1], {}, {"a": 1}, {"a": {"b": {"c": {"d": 1}}}}, [[[[[]]]]], "\ud800", "\U0001f4a5", "a:b", 'a"b'),
)


def damaged(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    """Return a message with one to four faults; now and then none."""
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 4))):
        text = dice.choice(_WAYS)(dice, text, others)
    return text[:200_000]


def _flip(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    if not text:
        return text
    at = dice.randrange(len(text))
    return text[:at] + bytes([dice.randrange(256)]) + text[at + 1 :]


def _cut(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    start, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    return text[:start] + text[min(end, start + dice.choice((1, 4, 16, 10_000))) :]


def _double(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    start, end = sorted(dice.randrange(len(text) + 1) for _ in range(2))
    return text[:end] + text[start:end] * dice.choice((1, 2, 50)) + text[end:]


def _insert(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    at = dice.randrange(len(text) + 1)
    return text[:at] + dice.choice(_TOKENS) + text[at:]


def _splice(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    other = dice.choice(others)
    return text[: dice.randrange(len(text) + 1)] + other[dice.randrange(len(other) + 1) :]


def _change(dice: random.Random, text: bytes, others: Sequence[bytes]) -> bytes:
    """Give one key of the message, or of one member, another value, another name or a repetition."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    target = dice.choice(value) if isinstance(value, list) and value else value
    if not isinstance(target, dict) or not target:
        return text
    key = dice.choice(sorted(target))
    match dice.randrange(4):
        case 0:
            del target[key]
        case 1:
            target[key + dice.choice(("", "_x", "\x00"))] = dice.choice(_VALUES)
        case _:
            target[key] = dice.choice(_VALUES)
    spaced = dice.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")))
    return json.dumps(value, separators=spaced, ensure_ascii=dice.random() < 0.5).encode("utf-8", "replace")


_WAYS: Final = (_flip, _cut, _double, _insert, _splice, _change, _change, _change)
