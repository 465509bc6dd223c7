"""JSON read as strictly as the contract asks: every key once, only numbers that every reader has."""

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 4
MAX_INTEGER: Final = 2**53


def loads(text: bytes) -> Any:
    """Read JSON; raise ValueError for whatever `json.loads` is too lenient about.

    That is NaN and Infinity, numbers that other readers would round or overflow, a key twice, and nesting
    deeper than MAX_DEPTH.
    """
    if (deepest := depth(text)) > MAX_DEPTH:
        raise ValueError(f"nested {deepest} deep; {MAX_DEPTH} are allowed")
    try:
        # As bytes it would be guessed to be UTF-16, or let surrogates pass that no writer can write.
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (RecursionError, OverflowError) as error:
        raise ValueError(reason(error)) from error
    if (fault := _impossible_number(value)) is not None:
        raise ValueError(fault)
    return value


def depth(text: bytes) -> int:
    """Return how deep arrays and objects nest; an upper bound where few brackets stand."""
    opening = text.count(b"[") + text.count(b"{")
    if opening <= MAX_DEPTH:
        return opening
    level = deepest = 0
    inside = False
    for byte in _ESCAPE.sub(b"", text).translate(None, _NOT_STRUCTURE):
        if byte == 0x22:
            inside = not inside
        elif inside:
            continue
        elif byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        else:
            level -= 1
    return deepest


def split(array: bytes) -> list[bytes]:
    """Return the members of what is an array by its brackets, whatever stands in them; none if it is not."""
    text = array.strip()
    members: list[bytes] = []
    level = start = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case b"[" | b"{":
                level += 1
                start = token.end() if level == 1 else start
            case b"]" | b"}":
                level -= 1
                if level == 0:
                    members.append(text[start : token.start()].strip())
                    return members if text[:1] == b"[" and token.end() == len(text) else []
            case b"," if level == 1:
                members.append(text[start : token.start()].strip())
                start = token.end()
    return []


def reason(error: Exception) -> str:
    """Return the first line of an error's text, short enough to be kept with each dead letter."""
    return str(error).split("\n", 1)[0][:200] or type(error).__name__


_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{},]', re.DOTALL)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice[:64]!r} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _impossible_number(value: Any) -> str | None:
    match value:
        case dict():
            return next((fault for item in value.values() if (fault := _impossible_number(item))), None)
        case list():
            return next((fault for item in value if (fault := _impossible_number(item))), None)
        case bool():
            return None
        case int() if abs(value) > MAX_INTEGER:
            return "an integer beyond 2^53"
        case float() if value in (float("inf"), float("-inf")):
            return "a number too large for JSON readers"
    return None
