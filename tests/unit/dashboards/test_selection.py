"""What an address says, and what it may not."""

import re
from zoneinfo import ZoneInfo

import msgspec
import pytest

from dashboards import selection
from dashboards.links import Place, link
from dashboards.selection import AddressError, select, times
from tests.support import small_cloud

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with small_cloud.opened(tmp_path_factory.mktemp("cloud")) as (found, _):
        yield found


def chosen(cloud, **query):
    return select(cloud, cloud.board(), BERLIN, {name.rstrip("_"): value for name, value in query.items()})


def test_no_address_is_the_running_shift_of_the_whole_site(cloud):
    found = chosen(cloud)
    assert (str(found.place), found.title, found.is_live) == ("berlin", "Shift 2, Wed 30 Jun 2021", True)
    assert found.end - found.start == 8 * 3600
    assert [key.machine for key in found.machines] == ["filler-1", "capper-1"]


def test_no_address_is_the_last_shift_where_none_runs(tmp_path):
    """Figures are of shifts and days: a stretch of hours before now has none of its own."""
    late = re.sub('  { name = "[23]", start .*\n', "", small_cloud.PLANT)
    with small_cloud.opened(tmp_path, plant=late) as (cloud, _):
        assert cloud.board().shift is None
        found = chosen(cloud)
        (row,) = cloud.figures(found.from_us, found.to_us, every="shift", level="site")
    assert (found.title, found.is_live) == ("Shift 1, Wed 30 Jun 2021", False)
    assert times(found)[0].text == "Last shift"
    assert row["calendar_secs"] == 2 * (found.end - found.start)


def test_a_shift_has_neighbours(cloud):
    found = chosen(cloud, shift="2021-06-29/2")
    assert (found.neighbour(-1).key, found.neighbour(1).key) == ("2021-06-29/1", "2021-06-29/3")
    assert not found.is_live


def test_dates_are_whole_days_of_the_plant_and_both_included(cloud):
    found = chosen(cloud, from_="2021-06-27", to="2021-06-28")
    assert found.end - found.start == 2 * 86_400
    assert found.zone.key == "Europe/Berlin"


def test_a_day_on_which_the_clock_changes_has_25_hours(cloud):
    november = msgspec.structs.replace(cloud.board(), generated_epochtime=1_636_000_000.0)
    found = select(cloud, november, BERLIN, {"from": "2021-10-31", "to": "2021-10-31"})
    assert found.end - found.start == 25 * 3600


@pytest.mark.parametrize(
    "query",
    [
        {"at": "elsewhere"},
        {"at": "berlin/packaging/line-9"},
        {"at": "a/b/c/d/e"},
        {"at": "../../etc"},
        {"shift": "2021-06-29/9"},
        {"shift": "no date"},
        {"days": "0"},
        {"days": "-1"},
        {"days": "٣"},
        {"days": "99999"},
        {"from_": "2021-06-30", "to": "2021-06-01"},
        {"from_": "1900-01-01", "to": "2021-06-01"},
        {"from_": "x"},
        {"from_": "9999-12-31", "to": "9999-12-31"},
        {"from_": "0001-01-01", "to": "0001-01-01"},
        {"shift": "9999-12-31/1"},
    ],
)
def test_an_impossible_address_is_refused(cloud, query):
    with pytest.raises(AddressError):
        chosen(cloud, **query)


@pytest.mark.parametrize(
    ("text", "instant_us"),
    [
        ("0", 0),
        ("1625032800.5", 1_625_032_800_500_000),
        ("2021-06-30T08:00", 1_625_032_800_000_000),
        ("2021-06-30T06:00Z", 1_625_032_800_000_000),
    ],
)
def test_an_instant_is_seconds_or_a_local_time_unless_it_says_otherwise(text, instant_us):
    assert selection.instant_us(text, BERLIN) == instant_us


@pytest.mark.parametrize(
    "text",
    ["", "soon", "nan", "inf", "-1", "1e17", "1e400", "0001-01-01", "9999-12-31T23:59-12:00", "1969-12-31"],
)
def test_what_is_no_instant_that_a_calendar_has_is_refused(text):
    with pytest.raises(ValueError, match="neither Unix seconds nor ISO 8601"):
        selection.instant_us(text, BERLIN)


def test_what_the_form_sends_without_a_script_means_the_same():
    assert selection.plain({"at": "x", "time": "shift:2021-06-29/2", "from": "", "to": ""}) == {
        "at": "x",
        "shift": "2021-06-29/2",
    }
    assert selection.plain({"time": "days:7", "from": "2021-06-01", "to": "2021-06-02"}) == {
        "from": "2021-06-01",
        "to": "2021-06-02",
    }


@pytest.mark.parametrize("days", ["2", "4", "90"])
def test_the_range_of_an_address_is_the_one_that_is_chosen(cloud, days):
    found = times(select(cloud, cloud.board(), BERLIN, {"days": days}))
    assert [choice.text for choice in found if choice.chosen] == [f"Last {days} days"]


def test_links_keep_slashes_readable_and_leave_out_what_is_not_said():
    assert link("/losses", at="a/b/c", product=None, shift="") == "/losses?at=a/b/c"
    assert link("/x", name="<&>") == "/x?name=%3C%26%3E"


def test_a_place_knows_what_stands_in_it(cloud):
    place = Place.parse("berlin/packaging/line-1")
    assert [key.machine for key in cloud.plant.machines if key in place] == [
        "filler-1",
        "capper-1",
    ]
    assert [str(parent) for parent in place.parents()][:2] == ["berlin", "berlin/packaging"]
