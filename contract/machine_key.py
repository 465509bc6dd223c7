"""The place of a machine in the plant: site > area > line > machine (ISA-95)."""

import re
from typing import Final, NamedTuple

LEVEL_PATTERN: Final = r"^[A-Za-z0-9_.-]{1,64}$"
_LEVEL = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class MachineKey(NamedTuple):
    """Four level names; `str()` joins them with slashes as topics and reports do."""

    site: str
    area: str
    line: str
    machine: str

    def __str__(self) -> str:
        """Return `site/area/line/machine`."""
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> "MachineKey":
        """Read `site/area/line/machine`; raise ValueError when a level is missing or ill-formed."""
        levels = text.split("/")
        if len(levels) != len(cls._fields) or not all(map(is_level, levels)):
            raise ValueError(f"{text!r} is not site/area/line/machine")
        return cls(*levels)


def whole_text(pattern: str) -> str:
    """Return a pattern that ends with `$` for Python, to which a last line break may follow that."""
    return pattern.removesuffix("$") + r"\Z"


def is_level(name: str) -> bool:
    """Tell whether a name may stand in a topic: 1 to 64 of `A-Z a-z 0-9 _ . -`."""
    return _LEVEL.fullmatch(name) is not None
