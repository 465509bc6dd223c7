"""Reports: each once, revised ones where wanted, to each recipient, whatever fails in between."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.support.mailbox import Mailbox
from tests.support.turns import DAY, HOUR, Plain, Turns

FILLER = "berlin/packaging/line-1/filler-1"
T0 = datetime(2021, 6, 28, 6, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()  # a Monday
KEY = "berlin|2021-06-28|1"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as opened:
        yield opened


def started(folder: Path, mailbox: Mailbox, *lines: str, to: str = "all@example.com") -> Turns:
    """Return a cloud side with one report, and the first shift's records."""
    text = f'[[report]]\nname = "r"\nformats = []\nurl = "{mailbox.url(to=to)}"\n' + "\n".join(lines)
    turns = Turns(folder / "cloud", text, now=T0)
    turns.turn(T0)
    work(turns, 0)
    return turns


def work(turns: Turns, shift: int) -> None:
    for hour in range(8):
        turns.say(FILLER, T0 + (8 * shift + hour) * HOUR + 60, 100 * (8 * shift + hour))


def test_a_report_is_made_once_its_shift_is_closed(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox)
    turns.turn(T0 + 8 * HOUR)
    assert mailbox.titles == []
    turns.turn(T0 + 8 * HOUR + 300)
    turns.turn(T0 + 8 * HOUR + 320)
    assert mailbox.titles == [f"shift {KEY} edition 1"]
    (mail,) = mailbox.mails
    body = mail.get_body(preferencelist=("html",))
    assert body is not None
    assert f"<p>shift {KEY} edition 1</p>" in body.get_content()
    turns.stop()


def test_a_restart_makes_no_report_twice_and_leaves_none_out(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox)
    turns.close(T0 + 8 * HOUR + 300)
    turns.restart()
    turns.jobs()
    turns.restart()
    turns.jobs()
    turns.carry()
    turns.restart()
    turns.turn(T0 + 8 * HOUR + 400)
    assert mailbox.titles == [f"shift {KEY} edition 1"]
    turns.stop()


def test_what_ended_before_the_report_was_set_up_is_not_mailed(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox)
    turns.stop()
    text = (turns.folder / "results.toml").read_text()
    (turns.folder / "results.toml").write_text("")
    turns.start()
    turns.turn(T0 + 9 * HOUR)
    turns.stop()
    (turns.folder / "results.toml").write_text(text.replace('"r"', '"later"'))
    turns.start()
    turns.turn(T0 + 10 * HOUR)
    assert mailbox.titles == []
    work(turns, 1)
    turns.turn(T0 + 17 * HOUR)
    assert mailbox.titles == ["shift berlin|2021-06-28|2 edition 1"]
    turns.stop()


def test_what_was_missed_is_made_up_for_but_not_for_ever(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox, "catch_up_days = 2")
    turns.turn(T0 + 8 * HOUR + 300)
    turns.turn(T0 + 8 * HOUR + 4 * DAY)
    days = [title.split("|")[1] for title in mailbox.titles[1:]]
    assert len(days) == 5
    assert set(days) == {"2021-06-30", "2021-07-01"}
    turns.stop()


@pytest.mark.parametrize("revised", [True, False])
def test_late_records_make_a_revised_report_once_where_that_is_wanted(
    tmp_path: Path, mailbox: Mailbox, revised: bool
) -> None:
    turns = started(tmp_path, mailbox, f"revised = {str(revised).lower()}", "revised_wait_secs = 600")
    turns.turn(T0 + 8 * HOUR + 300)
    turns.say(FILLER, T0 + 4.5 * HOUR, 440)
    now = T0 + 9 * HOUR
    assert turns.turn(now)
    turns.turn(now + 300)
    turns.say(FILLER, T0 + 5.5 * HOUR, 540)
    assert turns.turn(now + 400)
    turns.turn(now + 700)
    assert len(mailbox.titles) == 1
    turns.turn(now + 1010)
    turns.restart()
    turns.turn(now + 5000)
    turns.turn(now + 6000)
    assert mailbox.titles[1:] == ([f"shift {KEY} edition 2"] if revised else [])
    turns.stop()


def test_only_shifts_of_some_crews_and_places(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox, 'crews = ["B"]', 'places = ["berlin/packaging/line-1"]')
    for shift in range(1, 6):
        work(turns, shift)
    turns.turn(T0 + 2 * DAY + 300)
    found = [title.split()[1] for title in mailbox.titles]
    assert len(found) == 2
    assert {key.split("|")[0] for key in found} == {"berlin/packaging/line-1"}
    assert len({key.split("|")[2] for key in found}) == 2
    turns.stop()


def test_a_place_that_the_plant_lacks_is_told(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox, 'places = ["berlin/assembly"]')
    turns.turn(T0 + 9 * HOUR)
    assert set(turns.errors) == {"report r: berlin/assembly is not in the plant"}
    turns.stop()


def test_a_report_that_cannot_be_made_is_made_later(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox)
    assert isinstance(turns.printer, Plain)
    turns.printer.fails = True
    turns.turn(T0 + 9 * HOUR)
    assert turns.errors == ["no paper"]
    turns.printer.fails = False
    turns.turn(T0 + 9 * HOUR + 10)
    assert len(mailbox.titles) == 1
    turns.stop()


def test_each_recipient_gets_each_report_whoever_is_unknown(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox, 'to = ["a@example.com", "gone@example.com", "b@example.com"]')
    mailbox.refused = {"gone@example.com"}
    turns.turn(T0 + 9 * HOUR)
    turns.carry()
    assert sorted(mailbox.recipients) == ["a@example.com", "b@example.com"]
    views = {view.name: view for view in turns.cloud.outlets()}
    assert (views["mail:r:gone@example.com"].waiting, views["mail:r:a@example.com"].waiting) == (1, 0)
    assert views["mail:r:gone@example.com"].fault is not None
    turns.now += 4 * DAY
    turns.carry()
    assert turns.cloud.outlets()[1].dropped == 1
    turns.stop()


def test_a_mail_server_that_is_away_loses_nothing(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox)
    mailbox.shut()
    for shift in range(1, 4):
        turns.turn(T0 + shift * 8 * HOUR + 300)
        work(turns, shift)
    turns.restart()
    mailbox.open()
    turns.carry()
    assert [title.split("|")[2] for title in mailbox.titles] == ["1 edition 1", "2 edition 1", "3 edition 1"]
    turns.stop()


def test_a_clock_that_was_far_ahead_leaves_no_report_out(tmp_path: Path, mailbox: Mailbox) -> None:
    turns = started(tmp_path, mailbox)
    turns.close(T0 + 8 * HOUR + 300)
    turns.now = T0 + 400 * DAY
    turns.jobs()
    turns.turn(T0 + 8 * HOUR + 400)
    turns.turn(T0 + 8 * HOUR + 800)
    assert mailbox.titles == [f"shift {KEY} edition 1"]
    turns.stop()


@pytest.mark.parametrize(
    ("every", "made"), [("day", "day berlin|2021-06-28|"), ("week", "week berlin|2021-06-28|")]
)
def test_days_and_weeks_are_reported_when_their_last_shift_is_closed(
    tmp_path: Path, mailbox: Mailbox, every: str, made: str
) -> None:
    turns = started(tmp_path, mailbox, f'every = "{every}"')
    shifts = 3 if every == "day" else 21
    for shift in range(1, shifts):
        work(turns, shift)
        turns.turn(T0 + shift * 8 * HOUR + 300)
    assert mailbox.titles == []
    turns.turn(T0 + shifts * 8 * HOUR + 300)
    assert mailbox.titles == [f"{made} edition 1"]
    turns.stop()


def test_mail_in_plain_text_to_another_machine_is_refused(tmp_path: Path, mailbox: Mailbox) -> None:
    text = '[[report]]\nname = "r"\nformats = []\nurl = "mailto://mail.example.com/?from=a@example.com"\n'
    turns = Turns(tmp_path / "cloud", text, now=T0)
    turns.turn(T0)
    work(turns, 0)
    turns.turn(T0 + 9 * HOUR)
    (view,) = turns.cloud.outlets()
    assert "plain text" in (view.fault or "")
    assert view.waiting == 1
    turns.stop()
