"""The examples of docs/integration.md do what they say."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.results.export import Tables
from cloud.results.webhook import ShiftMessage, signed

PAGE = (Path(__file__).parents[4] / "docs" / "integration.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("secret", ["plain words", "whsec_AAECAwQ="])
def test_the_check_of_signatures_believes_ours_and_no_others(secret: str) -> None:
    import time

    names: dict[str, Any] = {}
    exec(block("python"), names)
    message = msgspec.json.decode(block("json"), type=ShiftMessage)
    posted = signed(message, secret, time.time_ns() // 1000)
    assert names["is_genuine"](posted.headers, posted.body, secret)
    assert not names["is_genuine"](posted.headers, posted.body + b" ", secret)
    assert not names["is_genuine"](posted.headers, posted.body, "another one")
    old = signed(message, secret, (time.time_ns() // 1000) - 400_000_000)
    assert not names["is_genuine"](old.headers, old.body, secret)


def test_the_message_shown_has_all_keys() -> None:
    assert set(json.loads(block("json"))) == set(ShiftMessage.__struct_fields__)


def test_every_column_of_the_export_is_told() -> None:
    tables = Tables("oee_shift", None)
    for table in (tables.shift, tables.loss, tables.stop):
        missing = [column.name for column in table.columns if f"`{column.name}`" not in PAGE]
        assert missing == [], table.name
