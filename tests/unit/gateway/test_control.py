"""Which commands are carried out, and that a stop outlasts a restart."""

import pytest

from contract.delivery import Command
from gateway.control import Control, stop_cause

NOW_US = 1_700_000_000_000_000
NAMES = ("plc-1", "plc-2")


def command(action="stop", *, id="a", connection="plc-1", asked_secs=0.0, lasts_secs=60.0, by="anna"):  # noqa: A002
    at = NOW_US / 1e6 + asked_secs
    return Command(
        id=id,
        site="plant",
        gateway="edge",
        connection=connection,
        action=action,
        requested_by=by,
        epochtime=at,
        expires_epochtime=at + lasts_secs,
    )


def test_a_stop_is_known_after_a_restart_and_a_start_takes_it_back(tmp_path):
    control = Control(tmp_path, is_open=True)
    control.decide(command(), NOW_US)
    again = Control(tmp_path, is_open=True)
    assert (again.stopped("plc-1").by, again.stopped("plc-1").since_us) == ("anna", NOW_US)
    assert again.stopped("plc-2") is None
    assert dict(again.causes()) == {"plc-1": "stopped by anna"}
    again.decide(command("start", asked_secs=1), NOW_US + 1)
    assert Control(tmp_path, is_open=True).stopped("plc-1") is None


def test_nothing_stays_stopped_where_commands_are_not_accepted(tmp_path):
    Control(tmp_path, is_open=True).decide(command(), NOW_US)
    control = Control(tmp_path, is_open=False)
    assert control.stopped("plc-1") is None
    assert control.refusal(command("start", asked_secs=1), NAMES, NOW_US) is not None


def test_who_stopped_first_is_the_one_who_is_named(tmp_path):
    control = Control(tmp_path, is_open=True)
    control.decide(command(), NOW_US)
    control.decide(command(id="b", by="ben", asked_secs=5), NOW_US + 5_000_000)
    assert (control.stopped("plc-1").by, control.stopped("plc-1").since_us) == ("anna", NOW_US)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, None),
        ({"connection": "plc-9"}, "no such connection"),
        ({"asked_secs": -61}, "expired"),
        ({"asked_secs": 301}, "future"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, asked, said):
    reason = Control(tmp_path, is_open=True).refusal(command(**asked), NAMES, NOW_US)
    assert reason is None if said is None else said in reason


def test_an_older_command_does_not_undo_a_newer_one(tmp_path):
    control = Control(tmp_path, is_open=True)
    control.decide(command("start", id="b", asked_secs=1), NOW_US)
    assert "newer" in control.refusal(command("stop", id="a"), NAMES, NOW_US)
    assert control.refusal(command("stop", id="c", connection="plc-2"), NAMES, NOW_US) is None
    assert "newer" in Control(tmp_path, is_open=True).refusal(command("stop"), NAMES, NOW_US)


def test_a_command_that_comes_again_is_known_by_its_id(tmp_path):
    control = Control(tmp_path, is_open=True)
    assert not control.is_answered(command())
    control.answer(command(), NOW_US, "no")
    assert control.is_answered(command())
    for number in range(20):
        control.answer(command(id=str(number)), NOW_US)
    assert len(control.answers) == 10


def test_a_file_that_cannot_be_read_is_put_aside_and_everything_is_read(tmp_path, capsys):
    (tmp_path / "connections.json").write_text("{nonsense")
    control = Control(tmp_path, is_open=True)
    assert control.stopped("plc-1") is None
    assert (tmp_path / "connections.damaged").read_text() == "{nonsense"
    control.decide(command(), NOW_US)
    assert Control(tmp_path, is_open=True).stopped("plc-1") is not None


def test_a_decision_is_not_made_where_its_folder_is_gone(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    control = Control(folder, is_open=True)
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        control.decide(command(), NOW_US)
    assert control.stopped("plc-1") is None


def test_the_cause_names_who_it_was():
    assert stop_cause("anna") == "stopped by anna"
