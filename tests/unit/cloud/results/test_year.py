"""A year of shifts by an injected clock: each is closed, mailed, posted and exported exactly once."""

import sqlite3
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cloud.results.letters import Post
from tests.support.turns import HOUR, Turns
from tests.support.webhooks import Receiver

ZONE = ZoneInfo("Europe/Berlin")
FIRST, LAST = date(2021, 1, 1), date(2021, 12, 31)
FILLER = "berlin/packaging/line-1/filler-1"
MAIL = "mailtos://mail.example.com?from=oee@example.com&to=all@example.com"
RESULTS = """
[[report]]
name = "shifts"
url = "{mail}"
to = ["lead@example.com"]
formats = []
[[report]]
name = "days"
every = "day"
url = "{mail}"
formats = []
[[report]]
name = "weeks"
every = "week"
url = "{mail}"
formats = []
[[webhook]]
name = "erp"
url = "{hook}"
allow_insecure = true
history = true
levels = ["machine"]
[[export]]
name = "bi"
url = "sqlite:///{database}"
"""


class Box:
    """Takes mails without a server, which would take most of a minute; other tests have a real one."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def send(self, title: str, body: str, **options: object) -> None:
        self.titles.append(title)


class Year(Turns):
    """A cloud side whose mails go into a box."""

    box: Box

    def start(self) -> None:
        super().start()
        for carrier in self.cloud._outlets.carriers:
            if isinstance(carrier, Post):
                carrier._postbox = self.box


def shift_ends() -> list[float]:
    """Return when each shift of the year ends, by the standard library alone."""
    found = []
    day = FIRST
    while day <= LAST:
        for hour, later in ((14, 0), (22, 0), (6, 1)):
            end = datetime(day.year, day.month, day.day, hour, tzinfo=ZONE) + timedelta(days=later)
            found.append(end.astimezone(UTC).timestamp())
        day += timedelta(days=1)
    return found


@pytest.mark.slow
def test_a_year_of_shifts_is_closed_mailed_posted_and_exported_exactly_once(tmp_path: Path) -> None:
    """With change days, restarts, a clock that is set back and forth, and an outage of a long weekend."""
    ends = shift_ends()
    assert len(ends) == 365 * 3
    start = datetime(2021, 1, 1, 6, tzinfo=ZONE).timestamp()
    outage = range(400, 409)
    closed: Counter[tuple[str, int]] = Counter()
    Year.box = box = Box()
    with Receiver() as receiver:
        text = RESULTS.format(mail=MAIL, hook=receiver.url, database=tmp_path / "bi.sqlite3")
        turns = Year(tmp_path / "cloud", text, now=start)
        turns.turn(start)
        for number, end in enumerate(ends):
            turns.say(FILLER, end - HOUR, 100 * number)
            if number in outage:
                continue
            if number % 97 == 0:
                turns.restart()
            if number % 61 == 0:
                turns.turn(end - HOUR)  # set back
            for shift in turns.turn(end + 300):
                closed[shift.scope, shift.start_us] += 1
            if number % 10 == 0:
                assert not turns.turn(end + 330)
        turns.stop()
        scopes = 2  # the machine and its line
        assert len(closed) == len(ends) * scopes
        assert set(closed.values()) == {1}
        titles = Counter(box.titles)
        assert set(titles.values()) == {1}
        of = Counter(title.split()[0] for title in titles)
        assert of == {"shift": len(ends), "day": 365, "week": 52}
        posted = Counter((one.message["scope"], one.message["figures"]["start"]) for one in receiver.posted)
        assert len(posted) == len(ends)
        assert set(posted.values()) == {1}
        hours = Counter(one.message["figures"]["calendar_secs"] / HOUR for one in receiver.posted)
        assert hours == {8.0: len(ends) - 2, 7.0: 1, 9.0: 1}
    with sqlite3.connect(tmp_path / "bi.sqlite3") as database:
        (rows,) = database.execute("SELECT count(*) FROM oee_shift WHERE is_newest").fetchone()
        (units,) = database.execute(
            "SELECT sum(total_units) FROM oee_shift WHERE scope = ? AND is_newest", (FILLER,)
        ).fetchone()
    database.close()
    assert rows == len(ends) * scopes
    assert units == 100 * (len(ends) - 1)
