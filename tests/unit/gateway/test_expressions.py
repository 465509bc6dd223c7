"""The small expressions of state rules."""

import pytest

from gateway.errors import ExpressionError
from gateway.expressions import Expression


@pytest.mark.parametrize(
    ("text", "values", "result"),
    [
        ("fault != 0 and not run", {"fault": 3, "run": False}, True),
        ("run or fault", {"fault": 0, "run": True}, True),
        ("(word & 0x0F) == 4", {"word": 0x34}, True),
        ("word >> 4 & 1", {"word": 0x10}, 1),
        ("1 < speed <= 10", {"speed": 10.0}, True),
        ("1 < speed <= 10", {"speed": 1}, False),
        ("mode == 'Auto'", {"mode": "Auto"}, True),
        ("run == true", {"run": True}, True),
        ("~mask & 255", {"mask": 1}, 254),
        ("~run", {"run": True}, False),
        ("~run and ~fault", {"run": False, "fault": False}, True),
        ("a * 2 + b / 4 - 1", {"a": 3, "b": 8}, 7.0),
        ("-a // 2 % 5", {"a": 7}, 1),
    ],
)
def test_an_expression_has_its_value(text: str, values: dict, result: object) -> None:
    assert Expression(text)(values) == result


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "a.__class__",
        "f(1)",
        "__import__('os')",
        "[1]",
        "a[0]",
        "lambda: 1",
        "a if b else c",
        "a ** 9999",
        "a := 1",
        "f'{a}'",
        "None",
        "b'x'",
        "1j",
        "a is b",
        "a in b",
        "a; b",
        "not " * 40 + "a",
        "-" * 60 + "a",
        "a" * 501,
        "a\x00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a / b", {"a": 1, "b": 0}),
        ("a + 1", {"a": "text"}),
        ("a * 1000000", {"a": "text"}),
        ("a < 1", {"a": "text"}),
        ("a << 64", {"a": 1}),
        ("a << b", {"a": 1, "b": -1}),
        ("a & 1", {"a": 1.5}),
        ("a", {}),
    ],
)
def test_a_value_that_there_cannot_be_is_an_error(text: str, values: dict) -> None:
    with pytest.raises(ExpressionError):
        Expression(text)(values)


def test_the_names_that_it_asks_for_are_known() -> None:
    assert Expression("a + b > 0 or true").names == {"a", "b"}
