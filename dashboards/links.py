"""What a page shows, as its address says it: place in the plant, shift or range, product.

Two people who open the same address see the same thing.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from contract.machine_key import MachineKey, is_level


@dataclass(frozen=True)
class Place:
    """A site, area, line or machine: one to four levels."""

    levels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read `site/area/line/machine` or a part of it from the left; raise ValueError for anything else."""
        levels = tuple(text.split("/"))
        if not 1 <= len(levels) <= 4 or not all(map(is_level, levels)):
            raise ValueError(f"{text[:80]!r} is not site/area/line/machine")
        return cls(levels)

    @property
    def level(self) -> str:
        """Return `site`, `area`, `line` or `machine`."""
        return ("site", "area", "line", "machine")[len(self.levels) - 1]

    @property
    def name(self) -> str:
        """Return the last level's name."""
        return self.levels[-1]

    @property
    def machine_key(self) -> MachineKey | None:
        """Return the machine, when the place is one."""
        return MachineKey(*self.levels) if len(self.levels) == 4 else None

    def parents(self) -> list["Place"]:
        """Return the places from the site down to this one."""
        return [Place(self.levels[: depth + 1]) for depth in range(len(self.levels))]

    def __contains__(self, key: MachineKey) -> bool:
        """Tell whether a machine stands here."""
        return tuple(key[: len(self.levels)]) == self.levels

    def __str__(self) -> str:
        """Return `site/area/line`."""
        return "/".join(self.levels)


def link(path: str, **query: str | float | None) -> str:
    """Return a path with its query; None and empty values are left out, slashes stay readable."""
    given = {name.rstrip("_"): value for name, value in query.items() if value not in (None, "")}
    return path + ("?" + urlencode(given, safe="/:") if given else "")
