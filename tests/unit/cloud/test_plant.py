"""What a plant.toml says, when it is right."""

from fractions import Fraction
from pathlib import Path

import pytest

from cloud.errors import CloudError, ConfigError, UnknownMachineError, UnknownReasonError
from cloud.plant import load, loads
from contract.machine_key import MachineKey
from contract.states import MachineState
from tests.support.plants import only, plant, plant_text, us

REASONS = """
[reason.jam]
name = "Jam at infeed"
category = "breakdown"
codes = [17, "E017"]
[reason.lunch]
name = "Lunch"
[[rule]]
reason = "jam"
codes = [99]
[[rule]]
reason = "lunch"
states = ["idle"]
at_least_secs = 600
below_secs = 3600
begins = { start = "11:30", end = "13:00" }
days = ["tue"]
[[rule]]
reason = "jam"
lines = ["packaging/line-1"]
states = ["changeover"]
[[rule]]
reason = "lunch"
machines = ["filler-1"]
begins = { start = "23:00", end = "01:00" }
"""


def test_a_rate_in_units_per_minute_becomes_an_exact_cycle() -> None:
    assert only(plant(machine="ideal_run_rate = 203.0")).cycle_us() == Fraction(60_000_000, 203)


def test_a_decimal_rate_is_read_as_it_is_written() -> None:
    assert only(plant(machine="ideal_run_rate = 0.1")).cycle_us() == 600_000_000


def test_a_cycle_in_seconds_is_exact() -> None:
    assert only(plant(machine="ideal_cycle_secs = 0.3")).cycle_us() == 300_000


def test_a_product_may_have_its_own_rate() -> None:
    machine = only(plant(machine='products = { "SKU-7" = { ideal_run_rate = 180 } }'))
    assert machine.cycle_us("SKU-7") == Fraction(1_000_000, 3)
    assert machine.cycle_us("SKU-8") == machine.cycle_us(None) == 1_000_000


def test_a_machine_overrides_its_line_and_its_line_the_site() -> None:
    text = plant_text(
        top="""
        [definitions]
        small_stop_secs = 100
        max_gap_secs = 45
        idle = "excluded"
        [line.line-1.definitions]
        small_stop_secs = 60
        idle = "performance"
        [line."packaging/line-1".definitions]
        cap_performance = true
        [targets]
        oee = 0.5
        quality = 0.6
        [line.line-1.targets]
        quality = 0.7
        """,
        machine='definitions = { idle = "availability" }\ntargets = { performance = 0.8 }',
    )
    machine = only(loads(text))
    assert machine.definitions.small_stop_us == 60_000_000
    assert machine.definitions.max_gap_us == 45_000_000
    assert machine.definitions.idle == "availability"
    assert machine.definitions.cap_performance
    assert [float(ratio) for ratio in machine.targets.model_dump().values()] == [0.5, 0.9, 0.8, 0.7]


def test_a_default_that_a_machine_writes_down_overrides_too() -> None:
    machine = only(
        plant(top="[definitions]\nsmall_stop_secs = 60", machine="definitions = { small_stop_secs = 120 }")
    )
    assert machine.definitions.small_stop_us == 120_000_000


def test_fractions_of_a_second_are_kept() -> None:
    machine = only(plant(top="[definitions]\nmax_gap_secs = 2.5", machine="idle_alert_secs = 0.25"))
    assert (machine.definitions.max_gap_us, machine.idle_alert_us) == (2_500_000, 250_000)


@pytest.mark.parametrize("code", [17, "17", "E017", "jam"])
def test_a_code_means_a_reason(code: int | str) -> None:
    reason = plant(top=REASONS).reason_for_code(code)
    assert reason is not None
    assert reason.name == "Jam at infeed"


def test_a_code_that_nobody_defines_means_none() -> None:
    assert plant(top=REASONS).reason_for_code(18) is None


def test_a_reason_that_nobody_defines_is_an_error() -> None:
    with pytest.raises(UnknownReasonError, match="'jam2' is not a reason of the plant"):
        plant(top=REASONS).reason("jam2")


def test_a_reason_is_planned_by_its_category_or_by_where_it_counts() -> None:
    found = plant(
        top="""
        [reason.a]
        name = "A"
        category = "planned"
        [reason.b]
        name = "B"
        category = "planned"
        counts_in = "availability"
        [reason.c]
        name = "C"
        counts_in = "excluded"
        [reason.d]
        name = "D"
        """
    )
    assert [found.reason(key).is_planned for key in "abcd"] == [True, False, True, False]


@pytest.mark.parametrize(
    ("state", "code", "start", "secs", "expected"),
    [
        ("faulted", 99, "2021-06-29T12:00", 1, "jam"),
        ("faulted", "99", "2021-06-29T12:00", 1, "jam"),
        ("idle", None, "2021-06-29T12:00", 600, "lunch"),
        ("idle", None, "2021-06-29T12:59", 3599, "lunch"),
        ("idle", None, "2021-06-29T13:00", 600, None),
        ("idle", None, "2021-06-29T12:00", 599, None),
        ("idle", None, "2021-06-29T12:00", 3600, None),
        ("stopped", None, "2021-06-29T12:00", 600, None),
        ("idle", None, "2021-06-30T12:00", 600, None),  # a Wednesday
        ("stopped", None, "2021-06-30T00:30", 5, "lunch"),  # between 23:00 and 01:00
        ("stopped", None, "2021-06-30T01:00", 5, None),
        ("changeover", None, "2021-06-29T12:00", 600, "jam"),
        ("running", 99, "2021-06-29T12:00", 600, None),
        ("unknown", 99, "2021-06-29T12:00", 600, None),
    ],
)
def test_the_first_rule_that_fits_a_stop_gives_its_reason(
    state: str, code: int | str | None, start: str, secs: int, expected: str | None
) -> None:
    found = plant(top=REASONS)
    machine = only(found)
    reason = found.site.reason_by_rule(
        machine.key, MachineState(state), code, us(start, "Europe/Berlin"), secs * 1_000_000
    )
    assert (reason and reason.key) == expected


def test_an_unknown_machine_is_an_error() -> None:
    with pytest.raises(UnknownMachineError, match="plant/packaging/line-1/filler-9 is not in the plant"):
        plant().machine(MachineKey("plant", "packaging", "line-1", "filler-9"))


def test_lines_hold_their_machines_in_the_order_of_the_file() -> None:
    found = loads(plant_text(machines=("b", "a")))
    assert [machine.key.machine for machine in found.lines["plant", "packaging", "line-1"]] == ["b", "a"]


def test_a_folder_holds_one_file_per_site(tmp_path: Path) -> None:
    for site, zone in (("berlin", "Europe/Berlin"), ("sydney", "Australia/Sydney")):
        text = plant_text(zone=zone).replace('name = "plant"', f'name = "{site}"')
        (tmp_path / f"{site}.toml").write_text(text)
    found = load(tmp_path)
    assert {key.site: machine.timezone.key for key, machine in found.machines.items()} == {
        "berlin": "Europe/Berlin",
        "sydney": "Australia/Sydney",
    }
    with pytest.raises(CloudError, match="2 sites; say which: berlin, sydney"):
        _ = found.timezone


def test_two_files_of_one_site_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(plant_text())
    (tmp_path / "b.toml").write_text(plant_text())
    with pytest.raises(ConfigError, match=r"b.toml: site.name: 'plant' is also the site of .*a.toml"):
        load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no"):
        load(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plant.toml: cannot be read: No such file"):
        load(tmp_path / "plant.toml")


def test_the_faults_of_all_files_of_a_folder_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(plant_text(zone="Nowhere"))
    (tmp_path / "b.toml").write_text("x = ")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert {Path(fault.file).name for fault in caught.value.faults} == {"a.toml", "b.toml"}
