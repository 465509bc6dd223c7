"""What a person at the terminal sees when something goes wrong."""

import asyncio

import pytest

from cloud.errors import ConfigError as CloudConfigError
from cloud.errors import Fault, StoreError
from gateway.errors import ConfigError, OutboxLockedError, UnreachableError
from oee.errors import CommandError, UsageError, told


def _raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OEE_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("port 8000 is in use"), 1, "oee: port 8000 is in use\n"),
        (UsageError("no such example"), 2, "oee: no such example\n"),
        (
            ConfigError(["a.toml: x: wrong", "a.toml: y: wrong"]),
            2,
            "oee: a.toml: x: wrong\noee: a.toml: y: wrong\n",
        ),
        (CloudConfigError([Fault("c.toml", "k", "wrong")]), 2, "oee: c.toml: k: wrong\n"),
        (OutboxLockedError("in use by process 7"), 2, "oee: in use by process 7\n"),
        (UnreachableError("no broker at localhost:1"), 1, "oee: no broker at localhost:1\n"),
        (StoreError("the store is damaged"), 1, "oee: the store is damaged\n"),
        (PermissionError(13, "Permission denied", "/var/x"), 1, "oee: Permission denied: /var/x\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_becomes_plain_lines_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(_raising(error)) == code
    assert capsys.readouterr().err == said


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(_raising(ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn"))) == 2
    assert "pip install 'oee-gateway[cloud]'" in capsys.readouterr().err


def test_a_fault_of_the_program_is_called_one_and_its_traceback_kept_for_who_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(_raising(ZeroDivisionError("division by zero"))) == 1
    said = capsys.readouterr().err
    assert "OEE_DEBUG=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("OEE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        told(_raising(ZeroDivisionError("division by zero")))


def test_the_error_inside_a_task_group_is_the_one_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_fail())

    async def _fail() -> None:
        raise CommandError("one line")

    assert told(lambda: asyncio.run(main())) == 1
    assert capsys.readouterr().err == "oee: one line\n"


def test_success_is_zero_and_an_exit_code_is_passed_on() -> None:
    assert told(lambda: None) == 0
    assert told(_raising(SystemExit(3))) == 3
    assert told(_raising(SystemExit(None))) == 0
