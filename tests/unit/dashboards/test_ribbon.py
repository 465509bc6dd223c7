"""The state ribbon's drawing."""

from itertools import pairwise
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

from cloud.views import Segment
from dashboards.charts import ribbon

BERLIN = ZoneInfo("Europe/Berlin")


def segment(start, end, state="running", category="production", reason=None):
    return Segment(
        start_epochtime=start, end_epochtime=end, state=state, category=category, loss="", reason_name=reason
    )


def boxes(drawing):
    return [
        item.attrib
        for item in ET.fromstring(str(drawing)).iter("rect")
        if item.get("class", "").startswith("k-")
    ]


def test_segments_cut_at_an_hour_are_drawn_as_one():
    parts = ribbon.stretches([segment(0, 3600), segment(3600, 5000), segment(5000, 5100, "idle")])
    assert [(part.start, part.end, part.look.kind) for part in parts] == [
        (0, 5000, "running"),
        (5000, 5100, "idle"),
    ]


def test_two_stops_with_different_reasons_stay_apart():
    stops = [segment(0, 60, "idle", reason="Blocked"), segment(60, 90, "idle", reason="Starved")]
    assert len(ribbon.stretches(stops)) == 2


def test_a_ribbon_is_scaled_to_its_window_and_ends_at_now():
    drawn = boxes(
        ribbon.ribbon("filler-1", [segment(0, 100), segment(100, 150, "faulted")], 0, 200, BERLIN, now=150)
    )
    assert [(box["x"], box["width"]) for box in drawn] == [("0.0000%", "50.0000%"), ("50.0000%", "25.0000%")]


def test_no_data_is_hatched_and_breaks_are_lower_than_stops():
    drawn = boxes(
        ribbon.ribbon(
            "m",
            [segment(0, 10, "unknown"), segment(10, 20, "idle", "break"), segment(20, 30, "idle")],
            0,
            30,
            BERLIN,
        )
    )
    assert [box["class"] for box in drawn] == ["k-unknown", "k-break", "k-idle"]
    assert drawn[0]["fill"] == "url(#hatch)"
    assert float(drawn[1]["height"]) < float(drawn[2]["height"])


def test_hostile_reason_names_stay_text():
    drawn = str(
        ribbon.ribbon("<b>", [segment(0, 10, "idle", reason='"><script>alert(1)</script>')], 0, 10, BERLIN)
    )
    assert "<script" not in drawn
    assert boxes(drawn)[0]["data-tip"].startswith('Idle · "><script>')


def test_the_axis_keeps_whole_local_hours_through_both_changes_of_clocks():
    autumn = ribbon.marks(1_635_631_200, 1_635_631_200 + 9 * 3600, BERLIN, 9)
    assert [later - sooner for sooner, later in pairwise(autumn)].count(7200.0) == 1
    spring = ribbon.marks(1_616_878_800, 1_616_878_800 + 7 * 3600, BERLIN, 7)
    assert spring == sorted(set(spring))
