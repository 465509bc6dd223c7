"""docs/traps.md from the rows."""

from pathlib import Path

from tests.traps import TRAPS

PAGE = Path(__file__).parents[2] / "docs" / "traps.md"
_BEGINNING = """\
# Traps of the libraries

What client libraries and servers do that would lose, double or forge values, what is done about it, and the
test that fails without it. This page is made from `tests/traps` (`python -m tests.traps --page`);
`python -m tests.traps` takes each remedy away in a copy of the tree and sees its test fail.

| whose | what it does | what is done | where | shown by |
|---|---|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = []
    for trap in TRAPS:
        file, _, name = trap.test.partition("::")
        cells = (trap.library, trap.does, trap.remedy, f"`{trap.file}`", f"`{Path(file).name}`: {name}")
        rows.append(f"| {' | '.join(cells)} |\n")
    return _BEGINNING + "".join(rows)
