"""Log lines are for people or for machines, and carry no secrets."""

import io
import json
import logging

import pytest
import structlog

from gateway.logging import configure


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(level, form):
    stream = io.StringIO()
    configure(level, form, stream)
    structlog.get_logger("uplink").warning(
        "uplink lost", uplink="broker", reason="it broke", password="hunter2"
    )
    structlog.get_logger("uplink").debug("too much")
    logging.getLogger("gateway.sources.opcua").info("%s: connected", "line-1")
    logging.getLogger("asyncua.client").error("the same again and again")
    try:
        int("inside")
    except ValueError:
        structlog.get_logger().exception("failed")
    return stream.getvalue()


def test_text_is_a_line_per_event():
    text = lines("info", "text")
    first, second, *_ = text.splitlines()
    assert "[warning" in first
    assert "uplink lost" in first
    assert "reason='it broke'" in first
    assert "uplink=broker" in first
    assert "line-1: connected" in second
    assert "ValueError: invalid literal" in text
    assert "\x1b" not in text


def test_json_is_an_object_per_line():
    documents = [json.loads(line) for line in lines("info", "json").splitlines()]
    assert documents[0]["event"] == "uplink lost"
    assert documents[0]["level"] == "warning"
    assert documents[0]["timestamp"].endswith("Z")
    assert documents[1]["event"] == "line-1: connected"
    assert "ValueError: invalid literal" in documents[2]["exception"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_and_chatter_stay_out(form):
    text = lines("info", form)
    assert "hunter2" not in text
    assert "too much" not in text
    assert "again and again" not in text
    assert "too much" in lines("debug", form)


def test_names_from_the_network_neither_drive_the_terminal_nor_forge_lines():
    stream = io.StringIO()
    configure("info", "text", stream)
    structlog.get_logger("x").info(
        "plc found", name="\x1b]0;owned\x07", user="a\n2026 [error] forged", way="a\u202eb"
    )
    logging.getLogger("gateway.x").info("tag %s", "\x1b[2J\nforged")
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "\\x1b]0;owned" in text
