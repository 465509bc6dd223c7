"""The error tree is one tree, and as it is drawn."""

import inspect
import re

from gateway import errors


def test_every_error_descends_from_the_one_base_and_stands_in_the_drawing():
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert all(issubclass(kind, errors.GatewayError) for kind in classes.values())
    drawn = re.findall(r"^[│├└─ ]*(\w+Error)\b", errors.__doc__, re.MULTILINE)
    assert sorted(drawn) == sorted(classes)


def test_the_drawing_tells_each_parent():
    parents: list[str] = []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"^([│├└─ ]*)(\w+Error)\b", line):
            depth = len(match[1]) // 4
            kind = getattr(errors, match[2])
            if depth:
                assert kind.__bases__[0].__name__ == parents[depth - 1], match[2]
            parents[depth:] = [match[2]]


def test_errors_carry_their_facts():
    assert errors.MessageTooLargeError(10, 5).limit_bytes == 5
    assert errors.PublishRefusedError("quota", transient=True).transient
    assert errors.ConfigError(["a: b", "c: d"]).faults == ["a: b", "c: d"]
