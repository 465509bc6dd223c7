"""Entries for gateway.toml, drafted from tags that were found; they load, a person completes them. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from contract.states import MachineState

_NUMBER: Final = "number"
_ANY: Final = "any"
MACHINE_TAGS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("state", _ANY, ("state", "status", "machinestate", "statecurrent", "mode")),
    (
        "total_units",
        _NUMBER,
        ("totalunits", "total", "count", "counter", "prodprocessedcount", "produced", "units"),
    ),
    (
        "off_quality_units",
        _NUMBER,
        ("offqualityunits", "offquality", "rejects", "reject", "scrap", "bad", "proddefectivecount"),
    ),
    ("good_units", _NUMBER, ("goodunits", "good", "goodcount")),
    ("reason_code", _ANY, ("faultcode", "reasoncode", "reason", "fault", "stopreason", "errorcode")),
    ("product", _ANY, ("product", "productcode", "article", "recipe", "material")),
    ("order", _ANY, ("order", "workorder", "orderid", "job")),
    ("operator", _ANY, ("operator", "user")),
)
"""How PLCs like to call what a machine needs, without signs and case, and what it must be; the first wins."""
_PACKML: Final = "statecurrent"
_RESERVED: Final = "gateways"
_MAX_LEVEL: Final = 64
_WORDS: Final = {
    "run": MachineState.RUNNING,
    "execut": MachineState.RUNNING,
    "idle": MachineState.IDLE,
    "wait": MachineState.IDLE,
    "stop": MachineState.STOPPED,
    "fault": MachineState.FAULTED,
    "error": MachineState.FAULTED,
    "abort": MachineState.FAULTED,
    "setup": MachineState.CHANGEOVER,
    "change": MachineState.CHANGEOVER,
}


@dataclass(frozen=True, slots=True)
class FoundTag:
    """A variable that a pattern matches.

    path: browse names below Objects, joined by slashes
    address: as gateway.toml wants it
    status: the name of its quality
    captures: what each wildcard of the pattern stood for, in order
    other: how a value looks that no field can be, such as an array or a date
    """

    path: str
    address: str
    value: object
    type: str
    status: str
    captures: tuple[str, ...]
    other: str = ""

    @property
    def folder(self) -> str:
        """Return the path of what holds it."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Return its own name."""
        return self.path.rpartition("/")[2]


def draft(tags: Iterable[FoundTag], area: str = "area", line: str = "line") -> str:
    """Return `[[connection.machine]]` tables for tags, one machine per folder that holds some of them.

    Known names become the fields they stand for, all others further tags; what no field can be is told in a
    comment. The tables always load, and no two machines are called the same.
    """
    machines: dict[str, list[FoundTag]] = {}
    for tag in tags:
        machines.setdefault(tag.folder, []).append(tag)
    taken: set[tuple[str, str, str]] = set()
    tables = []
    for folder, found in machines.items():
        place = _place(folder, area, line, taken)
        taken.add(place)
        tables.append("\n".join(_machine(place, found)) + "\n")
    return "\n".join(tables)


def _place(folder: str, area: str, line: str, taken: set[tuple[str, str, str]]) -> tuple[str, str, str]:
    """Return area, line and name of a machine by the last three folders, made different from all others."""
    levels = [_level(one) for one in folder.split("/") if one]
    name = levels[-1] if levels else "machine"
    line = levels[-2] if len(levels) > 1 else line
    area = levels[-3] if len(levels) > 2 else area
    if area == _RESERVED:
        area += "_"
    if (area, line, name) not in taken:
        return area, line, name
    number = 2
    while (area, line, f"{name[: _MAX_LEVEL - 5]}-{number}") in taken:
        number += 1
    return area, line, f"{name[: _MAX_LEVEL - 5]}-{number}"


def _machine(place: tuple[str, str, str], tags: Sequence[FoundTag]) -> Iterator[str]:
    yield "[[connection.machine]]"
    for level, name in zip(("area", "line", "name"), place, strict=True):
        yield f'{level} = "{name}"'
    rest = [tag for tag in tags if _is_scalar(tag)]
    fields: dict[str, FoundTag] = {}
    for field, kind, names in MACHINE_TAGS:
        known = next((tag for tag in rest if _plain_name(tag) in names and _can_be(tag, kind)), None)
        if known is not None:
            rest.remove(known)
            fields[field] = known
    yield from _state(fields)
    yield from (f"{field} = {_quoted(tag.address)}" for field, tag in fields.items() if field != "state")
    taken: set[str] = set()
    for tag in rest:
        name = _level(tag.name)
        while name in taken:
            name = f"{name[: _MAX_LEVEL - 1]}_"
        taken.add(name)
        yield f"tags.{name} = {_quoted(tag.address)}"
    for tag in tags:
        if not _is_scalar(tag):
            yield f"# {_level(tag.name)} is {tag.type}, {tag.status}: no field can be that"


def _state(fields: dict[str, FoundTag]) -> Iterator[str]:
    """Yield how the state is told: by a tag of that name, else by a counter that moves."""
    tag = fields.get("state")
    if tag is not None:
        yield f"# now {_shown(tag.value)}: say which value means which state"
        yield f"state = {{ node = {_quoted(tag.address)}, map = {_map(tag)} }}"
        return
    counter = next((name for name in ("total_units", "good_units") if name in fields), None)
    yield "# no tag was recognised as the state: name it here"
    if counter is not None:
        yield f'state = {{ moving = "{counter}" }}'
    else:
        yield 'state = { node = "ns=0;i=2259", map = { 0 = "unknown" } }'


def _map(tag: FoundTag) -> str:
    if _plain_name(tag) == _PACKML:
        return '"packml"'
    if isinstance(tag.value, bool):
        return '{ false = "stopped", true = "running" }'
    if isinstance(tag.value, str) and tag.value:
        words = re.split(r"[\W_\d]+", tag.value.lower())
        meant = next(
            (state for sign, state in _WORDS.items() if any(word.startswith(sign) for word in words)),
            MachineState.UNKNOWN,
        )
        return f'{{ {_quoted(tag.value)} = "{meant}" }}'
    return '{ 0 = "stopped", 1 = "running" }'


def _is_scalar(tag: FoundTag) -> bool:
    """Tell whether a tag can be mapped at all, as far as its value of now shows."""
    return isinstance(tag.value, bool | int | float | str) or tag.type == "Null"


def _can_be(tag: FoundTag, kind: str) -> bool:
    is_number = isinstance(tag.value, int | float) and not isinstance(tag.value, bool)
    return kind == _ANY or is_number or tag.value is None


def _plain_name(tag: FoundTag) -> str:
    return re.sub(r"[^a-z0-9]", "", tag.name.lower())


def _level(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:_MAX_LEVEL].strip("_") or "unnamed"


def _shown(value: object) -> str:
    """Return a value for a comment: of one line, and not long."""
    return re.sub(r"[^ -~]", "?", repr(value))[:60]


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
