"""Drafts for gateway.toml: whatever a PLC calls its tags, the tables load."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Machine, parse
from gateway.sources.draft import FoundTag, draft

HEAD = '[gateway]\nname = "g"\nsite = "s"\ndata_dir = "d"\n[[connection]]\nname = "p"\nendpoint = "opc.tcp://h:1"\n'


def tag(path: str, value: Any = 1, kind: str = "Int32") -> FoundTag:
    return FoundTag(path, f"nsu=urn:plc;s={path}", value, kind, "Good", ())


def loaded(*tags: FoundTag) -> tuple[Machine, ...]:
    return parse(tomllib.loads(HEAD + draft(tags)), "draft").connection[0].machine


def test_one_machine_per_folder() -> None:
    machines = loaded(tag("Hall/L1/M1/State"), tag("Hall/L1/M2/State"), tag("Hall/L1/M1/Total"))
    assert [(one.area, one.line, one.name) for one in machines] == [
        ("Hall", "L1", "M1"),
        ("Hall", "L1", "M2"),
    ]
    assert machines[0].total_units is not None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("State", True, {"false": "stopped", "true": "running"}),
        ("State", "Running", {"Running": "running"}),
        ("State", "Störung?", {"Störung?": "unknown"}),
        ("State", 7, {"0": "stopped", "1": "running"}),
    ],
)
def test_a_state_is_mapped_as_its_value_suggests(name: str, value: Any, expected: dict[str, str]) -> None:
    (machine,) = loaded(tag(f"a/b/c/{name}", value))
    assert machine.state.map == expected


def test_a_packml_state_has_the_packml_map() -> None:
    (machine,) = loaded(tag("a/b/c/StateCurrent", 6))
    assert machine.state.map is not None
    assert machine.state.map["6"] == "running"


def test_without_a_state_a_counter_that_moves_tells_it() -> None:
    (machine,) = loaded(tag("a/b/c/Total", 6))
    assert machine.state.moving == "total_units"


def test_a_counter_that_is_no_number_becomes_a_further_tag() -> None:
    (machine,) = loaded(tag("a/b/c/State"), tag("a/b/c/Count", "many", "String"))
    assert machine.total_units is None
    assert list(machine.tags) == ["Count"]


def test_what_no_field_can_be_is_told_in_a_comment() -> None:
    text = draft([tag("a/b/c/State"), tag("a/b/c/Curve", None, "Double[]")])
    assert "# Curve is Double[]" in text
    assert "tags.Curve" not in text


def test_names_that_become_the_same_are_told_apart() -> None:
    machines = loaded(
        tag("x/a/b/c/State"), tag("y/a/b/c/State"), tag("y/a/b/c/Speed 1"), tag("y/a/b/c/Speed_1")
    )
    assert [one.name for one in machines] == ["c", "c-2"]
    assert list(machines[1].tags) == ["Speed_1", "Speed_1_"]


names = st.text(min_size=1, max_size=80)
values = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.none())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(names, min_size=1, max_size=5), values), min_size=1, max_size=8))
def test_whatever_a_plc_has_the_draft_loads(found: list[tuple[list[str], Any]]) -> None:
    tags = [
        FoundTag(
            "/".join(path), "nsu=urn:plc;s=" + path[-1], value, "Null" if value is None else "Any", "Good", ()
        )
        for path, value in found
    ]
    assert loaded(*tags)
