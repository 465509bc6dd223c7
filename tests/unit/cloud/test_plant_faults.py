"""What is wrong with a plant.toml is said at once, each fault with its key and what is allowed."""

import pytest

from cloud.errors import ConfigError
from cloud.plant import loads
from tests.support.plants import THREE_SHIFTS, plant_text

ONE_SHIFT = 'shifts = [ { name = "1", start = "06:00", end = "14:00" } ]\n'


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return str(caught.value).splitlines()


CALENDAR_FAULTS = {
    "two shifts overlap": (
        """shifts = [ { name = "1", start = "06:00", end = "14:30" },
                    { name = "2", start = "14:00", end = "22:00" } ]""",
        (
            "calendar.main.shifts['2']: shift 2 overlaps shift 1 by 30 min"
            " on mon, tue, wed, thu, fri, sat, sun;"
            " shifts of a calendar may touch, not overlap"
        ),
    ),
    "the last night of the week overlaps its first morning": (
        """shifts = [ { name = "n", start = "22:00", end = "06:10", days = ["sun"] },
                      { name = "m", start = "06:00", end = "14:00", days = ["mon"] } ]""",
        (
            "calendar.main.shifts[m]: shift m overlaps shift n by 10 min on mon;"
            " shifts of a calendar may touch, not overlap"
        ),
    ),
    "a shift twice on a day": (
        """shifts = [ { name = "1", start = "06:00", end = "07:00" },
                    { name = "1", start = "08:00", end = "09:00" } ]""",
        "calendar.main.shifts['1']: the name stands twice on one day; one shift per name and day",
    ),
    "no day": (
        """shifts = [ { name = "1", start = "06:00", end = "14:00", days = [] } ]""",
        "calendar.main.shifts['1'].days: is empty; allowed: one or more of mon to sun",
    ),
    "a day that is none": (
        """shifts = [ { name = "1", start = "06:00", end = "14:00", days = ["mo"] } ]""",
        (
            "calendar.main.shifts['1'].days[1]: is 'mo';"
            " allowed: 'mon', 'tue', 'wed', 'thu', 'fri', 'sat' or 'sun'"
        ),
    ),
    "a break outside its shift": (
        """shifts = [ { name = "1", start = "22:00", end = "06:00", breaks = [
                    { start = "05:45", minutes = 30 } ] } ]""",
        (
            "calendar.main.shifts['1'].breaks[1]: the break 05:45 for 30 min is outside its shift;"
            " must lie within 22:00 to 06:00"
        ),
    ),
    "two breaks overlap": (
        """shifts = [ { name = "1", start = "06:00", end = "14:00", breaks = [
               { start = "10:00", minutes = 30 }, { start = "09:45", minutes = 16 } ] } ]""",
        (
            "calendar.main.shifts['1'].breaks[1]: overlaps another break;"
            " breaks of a shift may touch, not overlap"
        ),
    ),
    "a break of no length": (
        """shifts = [ { name = "1", start = "06:00", end = "14:00", breaks = [
                    { start = "10:00", minutes = 0 } ] } ]""",
        "calendar.main.shifts['1'].breaks[1].minutes: is 0; must be greater than 0",
    ),
    "a time that is none": (
        """shifts = [ { name = "1", start = "06:00", end = "24:01" } ]""",
        """calendar.main.shifts['1'].end: is '24:01'; must be a local time such as "06:00\"""",
    ),
    "a time without quotes or seconds that is a number": (
        """shifts = [ { name = "1", start = 6, end = "14:00" } ]""",
        """calendar.main.shifts['1'].start: is 6; must be a local time such as "06:00\"""",
    ),
    "a holiday with a time": (
        ONE_SHIFT + "holidays = [ { date = 2021-12-25T00:00:00 } ]",
        "calendar.main.holidays[1].date: is 2021-12-25T00:00:00; must be a date such as 2021-12-25",
    ),
    "a holiday that ends before it begins": (
        ONE_SHIFT + "holidays = [ { date = 2021-12-25, through = 2021-12-24 } ]",
        "calendar.main.holidays[1].through: is 2021-12-24; must not be before 2021-12-25",
    ),
    "a planned stop with a time zone": (
        ONE_SHIFT + "planned_stops = [ { start = 2021-06-30T10:00:00Z, minutes = 45 } ]",
        (
            "calendar.main.planned_stops[1].start: is 2021-06-30T10:00:00+00:00; must be a local moment"
            " such as 2021-06-30T10:00:00, without a time zone"
        ),
    ),
    "a planned stop at a time without days": (
        ONE_SHIFT + 'planned_stops = [ { start = "10:00", minutes = 45 } ]',
        (
            "calendar.main.planned_stops[1].days: does not fit the start;"
            " a moment has no days, a time of day needs them"
        ),
    ),
    "a planned stop for an unknown reason": (
        ONE_SHIFT + 'planned_stops = [ { start = "2021-06-30T10:00", minutes = 45, reason = "m" } ]',
        "calendar.main.planned_stops[1].reason: unknown reason 'm'; none is defined",
    ),
    "a planned stop of an unknown machine": (
        ONE_SHIFT + 'planned_stops = [ { start = "2021-06-30T10:00", minutes = 45, machines = ["x"] } ]',
        "calendar.main.planned_stops[1].machines: unknown machine 'x'; defined are: filler-1",
    ),
    "a planned stop of an unknown line": (
        ONE_SHIFT + 'planned_stops = [ { start = "2021-06-30T10:00", minutes = 45, lines = ["x"] } ]',
        "calendar.main.planned_stops[1].lines: unknown line 'x'; defined are: line-1, packaging/line-1",
    ),
    "an exception of an unknown shift": (
        ONE_SHIFT + 'exceptions = [ { date = 2021-07-03, shift = "2", cancelled = true } ]',
        (
            "calendar.main.exceptions[1].shift: unknown shift '2';"
            " defined are: 1; an extra one needs start and end"
        ),
    ),
    "an exception with half its times": (
        ONE_SHIFT + 'exceptions = [ { date = 2021-07-03, shift = "1", start = "05:00" } ]',
        "calendar.main.exceptions[1]: has one of start and end; both, or none for the usual times",
    ),
    "an exception whose breaks overlap in the usual times": (
        ONE_SHIFT + 'exceptions = [ { date = 2021-07-03, shift = "1", breaks = ['
        ' { start = "10:00", minutes = 30 }, { start = "10:15", minutes = 30 } ] } ]',
        (
            "calendar.main.exceptions[1].breaks[2]: overlaps another break;"
            " breaks of a shift may touch, not overlap"
        ),
    ),
    "an exception whose breaks are outside the usual times": (
        ONE_SHIFT + 'exceptions = [ { date = 2021-07-03, shift = "1", breaks = ['
        ' { start = "13:45", minutes = 30 } ] } ]',
        (
            "calendar.main.exceptions[1].breaks[1]: the break 13:45 for 30 min is outside its shift;"
            " must lie within 06:00 to 14:00"
        ),
    ),
    "an exception that overlaps the ordinary week": (
        THREE_SHIFTS + 'exceptions = [ { date = 2021-07-04, shift = "1", start = "04:00", end = "14:00" } ]',
        (
            "calendar.main.exceptions[1]: shift 1 overlaps shift 3 by 120 min on 2021-07-04;"
            " shifts of a calendar may touch, not overlap"
        ),
    ),
    "an exception twice": (
        ONE_SHIFT + 'exceptions = [ { date = 2021-07-03, shift = "1", cancelled = true },'
        ' { date = 2021-07-03, shift = "1" } ]',
        "calendar.main.exceptions[2]: shift 1 of 2021-07-03 stands twice; one exception per date and shift",
    ),
    "a cancelled exception with times": (
        ONE_SHIFT + 'exceptions = [ { date = 2021-07-03, shift = "1", cancelled = true,'
        ' start = "05:00", end = "06:00" } ]',
        "calendar.main.exceptions[1]: is cancelled and has times, breaks or a crew; one or the other",
    ),
    "a version before the calendar": (
        ONE_SHIFT
        + f"valid_from = 2021-01-01\n[[calendar.main.version]]\nvalid_from = 2021-01-01\n{ONE_SHIFT}",
        "calendar.main.version[1].valid_from: is 2021-01-01; must be later than 2021-01-01",
    ),
    "a version whose first morning overlaps the last night": (
        """shifts = [ { name = "n", start = "22:00", end = "06:00" } ]
        [[calendar.main.version]]
        valid_from = 2021-01-04
        shifts = [ { name = "m", start = "05:00", end = "13:00" } ]
        """,
        (
            "calendar.main.version[1].shifts[m]: shift m overlaps shift n by 60 min on 2021-01-04;"
            " shifts of a calendar may touch, not overlap"
        ),
    ),
    "a rotation of an unknown shift": (
        ONE_SHIFT + 'rotation = { crews = ["A", "B"], pattern = "1x--", from = 2021-01-04 }',
        "calendar.main.rotation.pattern: 'x' is no shift; defined are: 1; '-' for a day off",
    ),
    "a rotation that cannot be shared evenly": (
        ONE_SHIFT + 'rotation = { crews = ["A", "B"], pattern = "1--", from = 2021-01-04 }',
        (
            "calendar.main.rotation.pattern: 3 days cannot be shared evenly by 2 crews;"
            " a multiple of the number of crews, or one pattern per crew"
        ),
    ),
    "two crews on one shift": (
        ONE_SHIFT + 'rotation = { crews = ["A", "B"], pattern = { A = "1-1", B = "-1" }, from = 2021-01-04 }',
        "calendar.main.rotation.pattern: day 4 has A and B on shift 1; one crew",
    ),
    "a pattern of a crew that is none": (
        ONE_SHIFT + 'rotation = { crews = ["A", "B"], pattern = { A = "1", C = "-" }, from = 2021-01-04 }',
        "calendar.main.rotation.pattern: is for A, C; one pattern per crew: A, B",
    ),
    "a rotation without crews": (
        ONE_SHIFT + 'rotation = { crews = [], pattern = "1", from = 2021-01-04 }',
        "calendar.main.rotation.crews: is empty; at least one item",
    ),
}

TOP_FAULTS = {
    "an unknown table": (
        "[breaks]",
        "breaks: unknown key; allowed: site, definitions, targets, calendar, reason, rule, line, machine",
    ),
    "a misspelt definition": (
        "[definitions]\nbraeks = 1",
        "definitions.braeks: unknown key; did you mean breaks? allowed: ",
    ),
    "a definition that is none": (
        '[definitions]\nidle = "on"',
        "definitions.idle: is 'on'; allowed: 'availability', 'performance' or 'excluded'",
    ),
    "a negative time": (
        "[definitions]\nsmall_stop_secs = -1",
        "definitions.small_stop_secs: is -1; must be greater than or equal to 0",
    ),
    "a time in quotes": (
        '[definitions]\nmax_gap_secs = "30"',
        "definitions.max_gap_secs: is '30'; must be a number",
    ),
    "an endless time": (
        "[definitions]\nmax_gap_secs = inf",
        "definitions.max_gap_secs: is Infinity; must be a finite number",
    ),
    "a number for a truth": (
        "[definitions]\ncap_performance = 1",
        "definitions.cap_performance: is 1; must be true or false",
    ),
    "a target above one": ("[targets]\noee = 85", "targets.oee: is 85; must be less than or equal to 1"),
    "a reason of no known category": (
        '[reason.x]\nname = "X"\ncategory = "jam"',
        (
            "reason.x.category: is 'jam';"
            " allowed: 'breakdown', 'changeover', 'planned', 'idle', 'small_stop' or 'other_stop'"
        ),
    ),
    "a code of two reasons": (
        '[reason.x]\nname = "X"\ncodes = [1]\n[reason.y]\nname = "Y"\ncodes = ["1"]',
        "reason.y.codes: '1' already means x; one reason per code",
    ),
    "a code that is another reason's key": (
        '[reason.x]\nname = "X"\ncodes = ["y"]\n[reason.y]\nname = "Y"',
        "reason.x.codes: 'y' already means y; one reason per code",
    ),
    "a fraction as a code": (
        '[reason.x]\nname = "X"\ncodes = [1.5]',
        "reason.x.codes: is an array; must be an array of whole numbers and texts",
    ),
    "a rule for an unknown reason": (
        '[[rule]]\nreason = "x"',
        "rule[1].reason: unknown reason 'x'; none is defined",
    ),
    "a rule that nothing can fit": (
        '[reason.x]\nname = "X"\n[[rule]]\nreason = "x"\nat_least_secs = 5\nbelow_secs = 5',
        "rule[1].below_secs: is 5; must be greater than at_least_secs",
    ),
    "a line without machines": (
        "[line.line-9.definitions]",
        "line.line-9: no machine is on this line; defined are: line-1",
    ),
    "a line by a bottleneck that it has not": (
        '[line.line-1.definitions]\nline_from = "bottleneck"',
        (
            "line.line-1.definitions.line_from: the line has no bottleneck;"
            " one of its machines must say bottleneck = true"
        ),
    ),
    "all lines by a bottleneck that they have not": (
        '[definitions]\nline_from = "bottleneck"',
        (
            "definitions.line_from: no bottleneck on packaging/line-1;"
            " one machine of each line must say bottleneck = true"
        ),
    ),
}

MACHINE_FAULTS = {
    "a rate of zero": (
        "ideal_run_rate = 0",
        "machine[filler-1].ideal_run_rate: is 0; must be greater than 0",
    ),
    "two rates": (
        "ideal_run_rate = 1\nideal_cycle_secs = 60",
        (
            "machine[filler-1]: has two ideal rates;"
            " one of ideal_run_rate (units per minute) and ideal_cycle_secs"
        ),
    ),
    "a product without a rate": (
        "products = { p = {} }",
        (
            "machine[filler-1].products.p: has no ideal rate;"
            " one of ideal_run_rate (units per minute) and ideal_cycle_secs"
        ),
    ),
    "a counter of an odd width": (
        "counter_bits = 24",
        "machine[filler-1].counter_bits: is 24; allowed: 16, 32 or 64",
    ),
    "a jitter as wide as the counter": (
        "counter_bits = 16\ncounter_jitter = 40000",
        "machine[filler-1].counter_jitter: is 40000; must be below half of the 16-bit counter",
    ),
    "a production date of one machine": (
        'definitions = { production_date = "next_day" }',
        (
            "machine[filler-1].definitions.production_date: cannot differ between the machines of a line;"
            " allowed in [definitions] and [line.NAME.definitions]"
        ),
    ),
}


@pytest.mark.parametrize(("calendar", "expected"), CALENDAR_FAULTS.values(), ids=CALENDAR_FAULTS)
def test_a_fault_of_a_calendar_is_named(calendar: str, expected: str) -> None:
    assert faults(plant_text(calendar)) == [f"plant.toml: {expected}"]


@pytest.mark.parametrize(("top", "expected"), TOP_FAULTS.values(), ids=TOP_FAULTS)
def test_a_fault_of_a_table_is_named(top: str, expected: str) -> None:
    found = faults(plant_text(top=top))
    assert len(found) == 1
    assert found[0].startswith(f"plant.toml: {expected}")


@pytest.mark.parametrize(("machine", "expected"), MACHINE_FAULTS.values(), ids=MACHINE_FAULTS)
def test_a_fault_of_a_machine_is_named(machine: str, expected: str) -> None:
    assert faults(plant_text(machine=machine)) == [f"plant.toml: {expected}"]


def test_a_machine_twice_is_named() -> None:
    assert faults(plant_text(machines=("a", "a"))) == [
        "plant.toml: machine[a]: packaging/line-1/a stands twice; one [[machine]] per area, line and name"
    ]


def test_two_bottlenecks_of_a_line_are_named() -> None:
    assert faults(plant_text(machines=("a", "b"), machine="bottleneck = true")) == [
        "plant.toml: machine[b].bottleneck: a is the bottleneck of line-1; one machine per line"
    ]


def test_an_unknown_calendar_is_named_with_those_that_are() -> None:
    assert faults(plant_text().replace('calendar = "main"', 'calendar = "mian"')) == [
        "plant.toml: machine[filler-1].calendar: unknown calendar 'mian'; defined are: main"
    ]


def test_a_fault_of_a_machine_hides_no_other() -> None:
    text = plant_text(machines=("a", "a")).replace('calendar = "main"', 'calendar = "mian"')
    found = faults(text.replace("ideal_run_rate = 60", "ideal_run_rate = 0"))
    rate = "machine[a].ideal_run_rate: is 0; must be greater than 0"
    twice = "machine[a]: packaging/line-1/a stands twice; one [[machine]] per area, line and name"
    calendar = "machine[a].calendar: unknown calendar 'mian'; defined are: main"
    assert set(found) == {f"plant.toml: {fault}" for fault in (rate, twice, calendar)}


def test_a_machine_without_a_rate_is_named() -> None:
    assert faults(plant_text().replace("ideal_run_rate = 60", "")) == [
        (
            "plant.toml: machine[filler-1]: has no ideal rate;"
            " one of ideal_run_rate (units per minute) and ideal_cycle_secs"
        )
    ]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 65])
def test_a_level_that_could_not_stand_in_a_topic_is_named(name: str) -> None:
    found = faults(plant_text(machines=(name,)))
    assert [fault.rpartition("; ")[2] for fault in found] == ["allowed: 1 to 64 of A-Z a-z 0-9 _ . -"]


@pytest.mark.parametrize("zone", ["Europe/Berlim", "", "../etc/passwd", "/etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_named(zone: str) -> None:
    assert faults(plant_text(zone=zone)) == [
        (
            f"plant.toml: site.timezone: is {zone!r};"
            ' must be a name of the IANA time zone database such as "Europe/Berlin"'
        )
    ]


def test_every_fault_of_a_file_comes_at_once() -> None:
    """Faulty keys, and faults between what is right, without faults that only follow from others."""
    text = plant_text(
        """
        shifts = [ { name = "1", start = "06:00", end = "14:00" },
                   { name = "2", start = "13:00", end = "22:00" },
                   { name = "3", start = "25:00", end = "06:00" } ]
        exceptions = [ { date = 2021-07-03, shift = "3", cancelled = true } ]
        planned_stops = [ { start = "2021-06-30T10:00", minutes = 45, reason = "jam" } ]
        """,
        zone="Mars",
        top='[definitions]\nbraeks = "loss"\n[reason.jam]\ncategory = "breakdown"',
        machine="ideal_run_rate = 0\ncounter_bits = 8",
        machines=("a", "a"),
    )
    assert [fault.split(";")[0] for fault in faults(text)] == [
        "plant.toml: site.timezone: is 'Mars'",
        "plant.toml: definitions.braeks: unknown key",
        "plant.toml: calendar.main.shifts['3'].start: is '25:00'",
        "plant.toml: reason.jam.name: is missing",
        "plant.toml: machine[a].ideal_run_rate: is 0",
        "plant.toml: machine[a].counter_bits: is 8",
        "plant.toml: machine[a].ideal_run_rate: is 0",
        "plant.toml: machine[a].counter_bits: is 8",
        (
            "plant.toml: calendar.main.shifts['2']: shift 2 overlaps shift 1 by 60 min"
            " on mon, tue, wed, thu, fri, sat, sun"
        ),
        "plant.toml: machine[a]: packaging/line-1/a stands twice",
    ]


@pytest.mark.parametrize(
    "text", ["", "x = 1", "[machine]", "machine = 1", "calendar = 5\n[[machine]]\nname = 3"]
)
def test_a_file_with_nothing_right_is_refused(text: str) -> None:
    assert any("site: is missing" in fault for fault in faults(text))


def test_a_file_that_is_not_toml_is_refused_with_its_line() -> None:
    assert faults("[site\n") == [
        "plant.toml: is not TOML: Expected ']' at the end of a table declaration (at line 1, column 6)"
    ]


def test_a_moment_without_seconds_is_explained() -> None:
    calendar = ONE_SHIFT + "planned_stops = [ { start = 2021-06-30T10:00, minutes = 45 } ]"
    (found,) = faults(plant_text(calendar))
    assert found.endswith("; a moment is written with its seconds (2021-06-30T10:00:00) or in quotes")


def test_rows_are_counted_as_they_stand_in_the_file_whatever_is_wrong_before_them() -> None:
    text = plant_text(
        """shifts = [
             { name = "1", start = "06:00", end = "14:00", breaks = [
               { start = "07:00", minutes = 0 }, { start = "13:50", minutes = 20 } ] },
             { name = "2", start = "25:00", end = "22:00" },
             { name = "3", start = "13:00", end = "15:00" } ]
           holidays = [ { date = "x" }, { date = 2021-12-25, through = 2021-12-24 } ]
           exceptions = [ { date = 2021-07-03, shift = 1 }, { date = 2021-07-03, shift = "9" } ]
           [[calendar.main.version]]
           valid_from = "never"
           shifts = [ { name = "1", start = "06:00", end = "14:00" } ]
           [[calendar.main.version]]
           valid_from = 2021-08-01
           shifts = [ { name = "1", start = "06:00", end = "14:00", breaks = [
               { start = "05:00", minutes = 10 }, { start = "x", minutes = 1 },
               { start = "15:00", minutes = 5 } ] } ]""",
        top='[[rule]]\nreason = 5\n[[rule]]\nreason = "none"\n',
    )
    found = [fault.removeprefix("plant.toml: ").split(": ")[0] for fault in faults(text)]
    for path in (
        "calendar.main.shifts['1'].breaks[2]",
        "calendar.main.shifts['3']",
        "calendar.main.holidays[2].through",
        "calendar.main.exceptions[2].shift",
        "calendar.main.version[2].shifts['1'].breaks[3]",
        "rule[2].reason",
    ):
        assert path in found, path


def two_calendars(first: str, second: str, top: str = "") -> str:
    """Return a plant whose line has one machine by each of two calendars."""
    machines = "".join(
        f'[[machine]]\narea = "hall"\nline = "l"\nname = "{name}"\ncalendar = "{name}"\nideal_run_rate = 60\n'
        for name in ("one", "two")
    )
    calendars = f"[calendar.one]\n{first}\n[calendar.two]\n{second}\n"
    return f'[site]\nname = "s"\ntimezone = "UTC"\n{top}{calendars}{machines}'


EARLY = 'shifts = [ { name = "early", start = "06:00", end = "14:00", days = ["mon", "tue"] } ]'


@pytest.mark.parametrize(
    ("second", "top", "day"),
    [
        ('shifts = [ { name = "day", start = "06:00", end = "16:00" } ]', "", "Monday"),
        ('shifts = [ { name = "day", start = "06:00", end = "16:00", days = ["tue"] } ]', "", "Tuesday"),
        (
            """shifts = [ { name = "early", start = "06:00", end = "16:00" } ]
               exceptions = [ { date = 2021-06-29, shift = "extra", start = "06:00", end = "07:00" },
                              { date = 2021-06-29, shift = "early", cancelled = true } ]""",
            "",
            "Tuesday",
        ),
        (
            """shifts = [ { name = "early", start = "06:00", end = "16:00" } ]
               [[calendar.two.version]]
               valid_from = 2021-06-30
               shifts = [ { name = "day", start = "06:00", end = "16:00", days = ["mon"] } ]""",
            "",
            "Monday",
        ),
        (
            'shifts = [ { name = "early", start = "06:00", end = "01:00", days = ["mon"] } ]',
            '[line.l.definitions]\nproduction_date = "next_day"\n',
            "Monday",
        ),
    ],
    ids=["always", "on some days", "on one date", "from a date on", "of two production dates"],
)
def test_shifts_of_a_line_that_start_together_under_other_names_are_named(
    second: str, top: str, day: str
) -> None:
    (found,) = faults(two_calendars(EARLY, second, top))
    assert found.startswith("plant.toml: calendar.two: shift ")
    assert f"starts on {day} together with shift early of calendar one, and hall/l works by both" in found


@pytest.mark.parametrize(
    "second",
    [
        'shifts = [ { name = "early", start = "06:00", end = "01:00" } ]',
        'shifts = [ { name = "day", start = "06:00", end = "16:00", days = ["wed", "thu"] } ]',
        'shifts = [ { name = "day", start = "07:00", end = "16:00" } ]',
    ],
    ids=["one name", "other days", "another start"],
)
def test_shifts_of_a_line_that_can_be_told_apart_are_taken(second: str) -> None:
    assert len(loads(two_calendars(EARLY, second)).machines) == 2


@pytest.mark.parametrize("value", ["1e300", "1e15", "9223372036854775807", "31622401"])
@pytest.mark.parametrize("key", ["small_stop_secs", "max_gap_secs", "startup_secs", "lock_after_days"])
def test_a_time_beyond_all_sense_is_refused_before_it_is_counted_in(key: str, value: str) -> None:
    (found,) = faults(plant_text(top=f"[definitions]\n{key} = {value}\n"))
    assert found.startswith(f"plant.toml: definitions.{key}: is ")
    assert "must be" in found


@pytest.mark.parametrize("minutes", ["0", "-5", "527041", "9223372036854775807"])
def test_a_planned_stop_of_no_length_or_of_more_than_a_year_is_refused(minutes: str) -> None:
    stop = f'planned_stops = [ {{ start = "10:00", minutes = {minutes}, days = ["mon"] }} ]'
    (found,) = faults(plant_text(f"{ONE_SHIFT}{stop}"))
    assert "planned_stops[1].minutes: is" in found


@pytest.mark.parametrize("year", ["0001", "9999"])
@pytest.mark.parametrize(
    "keys",
    [
        'exceptions = [ {{ date = {}-12-31, shift = "1", cancelled = true }} ]',
        'rotation = {{ crews = ["A"], pattern = "123", from = {}-12-31 }}',
        'planned_stops = [ {{ name = "x", start = {}-12-31T10:00:00, minutes = 9 }} ]',
    ],
)
def test_a_date_that_nothing_can_be_laid_out_around_is_a_fault(year: str, keys: str) -> None:
    with pytest.raises(ConfigError, match="must be a "):
        loads(plant_text(THREE_SHIFTS + keys.format(year) + "\n"))
