"""The terminal of the demo: lines where nobody can redraw, a table where somebody watches."""

import io

from rich.console import Console

from contract.delivery import Alert
from contract.machine_key import MachineKey
from oee.screen import Screen, closed_shift, percent
from oee.watch import Heard

KEY = MachineKey("demo-plant", "packaging", "line-1", "filler-1")


def _heard() -> Heard:
    heard = Heard("demo-plant", since=0.0)
    heard.current[KEY] = {"oee": 0.7479, "availability": 0.8881, "good_units": 12345}
    heard.closed[KEY] = {"oee": None}
    return heard


def _alert() -> Alert:
    about = {"site": KEY.site, "area": KEY.area, "line": KEY.line, "machine": KEY.machine}
    fields = {"id": "a1", "event": "raised", "rule": "idle", "epochtime": 1000.0, "since_epochtime": 990.0}
    return Alert(**{**about, **fields, "message": "filler-1 is idle for 15 s"})


def test_into_a_file_only_what_happens_is_written() -> None:
    out = io.StringIO()
    with Screen(_heard(), Console(file=out)) as screen:
        screen.say("begun")
        screen.alert(_alert())
    lines = out.getvalue().splitlines()
    assert lines[0] == "begun"
    assert lines[1].endswith("! alert raised: filler-1 is idle for 15 s")
    assert len(lines) == 2
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_the_figures_stand_below() -> None:
    out = io.StringIO()
    with Screen(_heard(), Console(file=out, force_terminal=True, width=120)):
        pass
    assert "line-1 filler-1" in out.getvalue()
    assert "74.8" in out.getvalue()
    assert "12 345" in out.getvalue()


def test_a_ratio_that_does_not_exist_is_a_dash() -> None:
    assert percent(None) == "-"
    assert percent(0) == "0.0"
    assert percent(1.034) == "103.4"


def test_names_from_plcs_are_not_taken_as_markup() -> None:
    out = io.StringIO()
    with Screen(_heard(), Console(file=out)) as screen:
        screen.say("machine [red]x[/red] \x1b[2J")
    assert out.getvalue().startswith("machine [red]x[/red] ")
    assert "\x1b" not in out.getvalue()


def test_a_closed_shift_is_one_line() -> None:
    figures = [
        {"machine": "filler-1", "shift": "2", "production_date": "2025-11-23", "oee": 0.5},
        {"machine": "capper-1", "shift": "2", "production_date": "2025-11-23", "oee": None},
    ]
    assert closed_shift(figures) == "closed shift 2 of 2025-11-23: OEE filler-1 50.0 %, capper-1 - %"
