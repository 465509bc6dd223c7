"""The command line answers at once and teaches."""

import resource
import subprocess
import sys

import pytest
from typer.main import get_command

from oee.cli import app

HELP_SECS = 0.3


def _commands() -> list[tuple[str, ...]]:
    def walk(command, path):
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))

    return list(walk(get_command(app), ()))


def _oee(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oee", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", _commands(), ids=" ".join)
def test_every_command_has_help_that_says_what_it_does(path: tuple[str, ...]) -> None:
    command = get_command(app)
    for name in path:
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"oee {' '.join(path)}: {parameter.name}"


def test_help_answers_at_once() -> None:
    for path in ((), ("demo",), ("gateway",), ("gateway", "run"), ("compute",)):
        best = min(_seconds(*path, "--help") for _ in range(3))
        assert best <= HELP_SECS, f"oee {' '.join(path)} --help took {best:.2f} s"


def test_no_heavy_module_is_loaded_before_a_command_needs_it() -> None:
    heavy = [
        "numpy",
        "pandas",
        "fastapi",
        "asyncua",
        "paho",
        "rich",
        "pydantic",
        "msgspec",
        "structlog",
        "asyncio",
    ]
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, oee.cli; print([m for m in {heavy} if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_without_arguments_the_help_is_shown() -> None:
    ended = _oee()
    assert "oee demo" in ended.stdout + ended.stderr


def test_an_unknown_command_is_a_matter_of_usage() -> None:
    ended = _oee("simulat")
    assert ended.returncode == 2
    assert "simulate" in ended.stderr, "the right word is suggested"


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_the_version_is_one_line(word: str) -> None:
    ended = _oee(word)
    assert ended.returncode == 0
    assert ended.stdout.count("\n") == 1


def _seconds(*arguments: str) -> float:
    """Return the processor time of one run: the clock on the wall also counts what other programs do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert _oee(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
