"""Words of others, made safe to show on one line of a terminal or a log.

Names come from PLCs, brokers and databases. Printed as they are, an escape sequence would move the cursor or
rename the window, a line break would forge a log line, and a change of direction would show another text than
is there.
"""

import unicodedata
from typing import Final

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls, formats (directions, joiners), surrogates, separators of lines and paragraphs."""


def printable(text: str) -> str:
    """Return a text in which everything that is no visible character is written out in hexadecimal."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in text
    )
