"""Tag values become fields."""

import math
from typing import Any

import pytest

from contract.machine_key import MachineKey
from gateway.config import Machine
from gateway.tags import WAITING, Fields, MachineTags, bindings
from tests.support.opcua_gateway import configured

KEY = MachineKey("s", "a", "l", "m")
BAD, UNCERTAIN = 0x808B0000, 0x40900000


def tags(state: dict[str, Any] | None = None, **fields: Any) -> MachineTags:
    state = state or {"node": "i=1", "map": {"0": "stopped", "1": "running"}}
    machine = Machine.model_validate({"area": "a", "line": "l", "name": "m", "state": state, **fields})
    return MachineTags(KEY, machine, hex)


def composed(made: MachineTags, *values: Any, statuses: list[int] | None = None, **options: Any) -> Fields:
    return made.compose(list(values), statuses or [0] * len(values), **options)


@pytest.mark.parametrize(
    ("mapping", "value", "state"),
    [
        ({"0": "stopped", "1": "running"}, 1, "running"),
        ({"0": "stopped", "1": "running"}, 1.0, "running"),
        ({"0": "stopped", "1": "running"}, 7, "unknown"),
        ({"07": "stopped", "-1": "idle", "300": "running"}, 7, "unknown"),
        ({"07": "stopped", "-1": "idle", "300": "running"}, -1, "idle"),
        ({"07": "stopped", "-1": "idle", "300": "running"}, 300, "running"),
        ({"07": "stopped", "-1": "idle", "300": "running"}, 300.0, "running"),
        ({"0": "stopped", "1": "running"}, 1.5, "unknown"),
        ({"Auto": "running"}, "Auto", "running"),
        ({"true": "running", "false": "stopped"}, True, "running"),
        ({"true": "running", "false": "stopped"}, False, "stopped"),
        ({"0": "stopped", "1": "running"}, True, "running"),
        ("packml", 6, "running"),
        ("packml", "Execute", "running"),
        ("packml", "ABORTED", "faulted"),
        ("packml", 11, "stopped"),
        ("packml", 99, "unknown"),
    ],
)
def test_a_state_is_mapped(mapping: Any, value: Any, state: str) -> None:
    assert composed(tags({"node": "i=1", "map": mapping}), value).state == state


@pytest.mark.parametrize(
    ("word", "state"),
    [
        (0b1000, "faulted"),
        (0b1001, "faulted"),
        (0b0001, "running"),
        (0, "idle"),
        (True, "running"),
        (-1, "faulted"),
    ],
)
def test_the_first_bit_that_is_set_tells_the_state(word: int, state: str) -> None:
    made = tags({"node": "i=1", "bits": {"3": "faulted", "0": "running"}, "otherwise": "idle"})
    assert composed(made, word).state == state


def test_bits_of_a_text_are_a_mismatch_and_bad() -> None:
    fields = composed(tags({"node": "i=1", "bits": {"0": "running"}}), "x")
    assert (fields.state, fields.data_quality, fields.status) == ("unknown", "bad", "0x80740000")


def test_the_first_rule_that_is_true_tells_the_state() -> None:
    made = tags(
        {
            "nodes": {"run": "i=1", "fault": "i=2"},
            "rules": [{"when": "fault != 0", "then": "faulted"}, {"when": "run", "then": "running"}],
            "otherwise": "stopped",
        }
    )
    assert composed(made, True, 0).state == "running"
    assert composed(made, True, 4).state == "faulted"
    assert composed(made, False, 0).state == "stopped"
    assert composed(made, True, None, statuses=[0, BAD]).data_quality == "bad"


def test_a_rule_over_nan_tells_no_state() -> None:
    """A comparison with NaN is false: `otherwise` would be told as if it had been seen."""
    made = tags(
        {
            "nodes": {"speed": "i=1"},
            "rules": [{"when": "speed > 0", "then": "running"}],
            "otherwise": "stopped",
        }
    )
    assert composed(made, 1.5).state == "running"
    assert composed(made, 0.0).state == "stopped"
    fields = composed(made, math.nan)
    assert (fields.state, fields.data_quality) == ("unknown", "bad")


def test_a_counter_that_moves_is_a_machine_that_runs() -> None:
    made = tags({"moving": "total_units", "otherwise": "idle"}, total_units="i=2")
    assert composed(made, 5, moving=True).state == "running"
    assert composed(made, 5, moving=False).state == "idle"
    assert composed(made, 5, moving=None).state == "unknown"
    assert composed(made, None, statuses=[BAD], moving=True).state == "unknown"


@pytest.mark.parametrize(
    ("tag", "value", "units"),
    [
        ({}, 7, 7),
        ({}, 7.9, 7),
        ({"bits": 16}, -1, 65_535),
        ({"bits": 16}, -32_768, 32_768),
        ({"bits": 16}, -32_769, None),
        ({"bits": 32}, -2, 4_294_967_294),
        ({"bits": 64}, 2**53, 2**53),
        ({"bits": 64}, 2**53 + 1, None),
        ({"scale": 12}, 5, 60),
        ({"scale": 0.1}, 25, 2),
        ({"scale": 0.29}, 100, 29),
        ({"scale": 0.57, "bits": 64}, 10**15, 57 * 10**13),
        ({}, True, None),
        ({}, "7", None),
        ({}, math.nan, None),
        ({}, math.inf, None),
        ({}, -1.0, None),
        ({}, None, None),
    ],
)
def test_a_counter_is_whole_units_or_nothing(tag: dict[str, Any], value: Any, units: int | None) -> None:
    fields = composed(tags(total_units={"node": "i=2", **tag}), 1, value)
    assert fields.total_units == units
    assert fields.data_quality == ("good" if units is not None else "uncertain")
    assert fields.state == "running"


def test_a_bad_counter_is_left_out_and_makes_the_record_uncertain() -> None:
    fields = composed(tags(total_units="i=2"), 1, None, statuses=[0, BAD])
    assert (fields.state, fields.total_units, fields.data_quality) == ("running", None, "uncertain")
    assert fields.status == hex(BAD)


def test_an_uncertain_value_is_used_and_marked() -> None:
    fields = composed(tags(total_units="i=2"), 1, 8, statuses=[0, UNCERTAIN])
    assert (fields.total_units, fields.data_quality, fields.status) == (8, "uncertain", hex(UNCERTAIN))
    fields = composed(tags(total_units="i=2"), 1, 8, statuses=[UNCERTAIN, 0])
    assert (fields.state, fields.data_quality) == ("running", "uncertain")


def test_what_a_tag_cannot_mean_is_no_better_for_being_called_good() -> None:
    """Good has shades of its own, such as a value that somebody has forced."""
    forced = 0x00960000
    fields = composed(tags(total_units="i=2"), 1, "seven", statuses=[0, forced])
    assert (fields.total_units, fields.data_quality) == (None, "uncertain")
    fields = composed(tags(total_units="i=2"), 1, 7, statuses=[0, forced])
    assert (fields.total_units, fields.data_quality, fields.status) == (7, "good", None)


def test_without_its_total_a_machine_tells_no_other_counter() -> None:
    """A reader would take it for a machine that counts no total, and add its rejects to the total."""
    counters = {"total_units": {"node": "i=2"}, "off_quality_units": {"node": "i=3"}}
    fields = composed(tags(**counters), 1, 5, 2, statuses=[0, BAD, 0])
    assert (fields.total_units, fields.off_quality_units) == (None, None)
    assert fields.data_quality == "uncertain"
    alone = composed(tags(off_quality_units={"node": "i=3"}), 1, 2)
    assert (alone.total_units, alone.off_quality_units) == (None, 2)


def test_a_bad_state_is_worse_than_anything_else() -> None:
    fields = composed(tags(total_units="i=2"), None, 8, statuses=[BAD, UNCERTAIN])
    assert (fields.state, fields.data_quality, fields.status) == ("unknown", "bad", hex(BAD))


def test_a_tag_that_was_never_heard_is_not_good() -> None:
    fields = composed(tags(total_units="i=2"), 1, None, statuses=[0, WAITING])
    assert (fields.total_units, fields.data_quality) == (None, "uncertain")


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0, None), ("", None), (17, 17), ("jam", "jam"), (2**60, None), (1.5, "1.5"), (False, None)],
)
def test_a_reason_is_an_integer_or_a_text(value: Any, reason: Any) -> None:
    assert composed(tags(reason_code="i=2"), 1, value).reason_code == reason


@pytest.mark.parametrize(
    ("value", "text"), [("cola", "cola"), (4711, "4711"), (1.5, "1.5"), ("x" * 300, "x" * 256)]
)
def test_a_product_is_text(value: Any, text: str) -> None:
    assert composed(tags(product="i=2"), 1, value).product == text


def test_a_text_that_json_cannot_carry_is_made_to_fit() -> None:
    assert composed(tags(product="i=2"), 1, "a\ud800b").product == "a?b"


def test_further_tags_are_scaled_and_named() -> None:
    made = tags(tags={"temp": {"node": "i=2", "scale": 0.1, "offset": -10}, "door": "i=3", "mode": "i=4"})
    assert composed(made, 1, 250, True, "auto").tags == {"temp": 15.0, "door": True, "mode": "auto"}
    assert composed(made, 1, math.nan, True, 2**60).tags == {"door": True}


def test_a_rate_of_zero_is_none() -> None:
    made = tags(ideal_run_rate={"node": "i=2", "scale": 60})
    assert composed(made, 1, 2).ideal_run_rate == 120.0
    assert composed(made, 1, 0).ideal_run_rate is None


def test_a_note_marks_a_record_that_is_otherwise_good() -> None:
    made = tags(total_units="i=2")
    assert composed(made, 1, 2, note="GatewayTimestamp").data_quality == "uncertain"
    assert composed(made, 1, 2, statuses=[0, UNCERTAIN], note="GatewayTimestamp").status == hex(UNCERTAIN)


def test_bindings_are_numbered_with_the_settings_of_tag_or_connection(tmp_path) -> None:
    machine = {
        "name": "m",
        "state": {"node": "i=1", "map": {"1": "running"}, "queue_size": 5},
        "total_units": {"node": "i=2", "sampling_interval_secs": 0},
        "tags": {"t": {"node": "i=3", "deadband": 0.5}},
    }
    connection = configured(
        "opc.tcp://h:1", [machine], tmp_path, queue_size=9, sampling_interval_secs=1.0
    ).connection[0]
    made = bindings(connection, [MachineTags(KEY, connection.machine[0], hex)])
    assert [(b.handle, b.slot, b.queue_size, b.sampling_interval_secs, b.deadband) for b in made] == [
        (1, 0, 5, 1.0, 0.0),
        (2, 1, 9, 0.0, 0.0),
        (3, 2, 9, 1.0, 0.5),
    ]
