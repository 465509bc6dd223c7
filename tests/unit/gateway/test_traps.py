"""The table of traps is true of the tree: remedies stand where it says, tests are called so."""

import re
from pathlib import Path

import pytest

from tests.traps import TRAPS, Trap
from tests.traps.page import PAGE, render

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.does[:40])
def test_the_remedy_stands_where_the_table_says(trap: Trap) -> None:
    assert (ROOT / trap.file).read_text(encoding="utf-8").count(trap.has) == 1
    assert trap.has != trap.without


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.does[:40])
def test_the_test_that_is_named_exists(trap: Trap) -> None:
    file, _, name = trap.test.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {re.escape(name.partition('[')[0])}\(", text, re.MULTILINE)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()
