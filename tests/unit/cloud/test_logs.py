"""What the service's log tells, and what it must not."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import structlog
from cloud.commands import _log_to_stderr

def connect(word):
    raise OSError("no way")

def login():
    hidden = "hunter" + "2"
    connect(hidden)

_log_to_stderr("info", sys.argv[1])
try:
    login()
except OSError:
    structlog.get_logger("test").exception("it broke")
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_fault_is_logged_with_its_traceback_and_without_the_values_of_variables(form: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True
    ).stderr
    assert "it broke" in said
    assert "OSError: no way" in said
    assert "hunter2" not in said
    assert said.count("\n") < 20
