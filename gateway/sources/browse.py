"""The tags of a PLC, found by a pattern over their browse paths, without ever blocking on their number."""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from asyncua import ua

from gateway.sources.addresses import Child, browse_children, spelled, step_of
from gateway.sources.session import Session, standard_node
from gateway.sources.statuses import status_name
from gateway.sources.values import plain_value

_STANDARD: Final = 0
_BREADTH: Final = 200
"""Folders asked for at once."""
_PORTION: Final = 500
"""Tags read and shown at once."""
_ANYWHERE: Final = "**"
_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class FoundTag:
    """A variable that a pattern matches.

    path: browse names below Objects, joined by slashes
    address: as gateway.toml wants it
    status: the name of its quality
    captures: what each wildcard of the pattern stood for, in order
    """

    path: str
    address: str
    value: object
    type: str
    status: str
    captures: tuple[str, ...]


class Pattern:
    """A glob over browse paths: `*` and `?` within one name, `[ab]` sets, `**` for any number of names.

    An empty pattern matches everything.
    """

    def __init__(self, text: str) -> None:
        steps = [step for step in text.strip("/").split("/") if step]
        if steps[:1] == ["Objects"]:
            steps = steps[1:]
        self.steps = steps or [_ANYWHERE]
        self._whole = re.compile("".join(_regex(self.steps)) + r"\Z", re.DOTALL)
        self._names = [re.compile(_name_regex(step) + r"\Z", re.DOTALL) for step in self.steps]

    def match(self, path: Sequence[str]) -> tuple[str, ...] | None:
        """Return what the wildcards stand for when a path matches; None when it does not."""
        found = self._whole.match("".join(f"/{name}" for name in path))
        return None if found is None else tuple((one or "").strip("/") for one in found.groups())

    def may_hold(self, path: Sequence[str]) -> bool:
        """Tell whether a match may stand below a path, so that only such folders are read."""
        for position, name in enumerate(path):
            if position >= len(self.steps):
                return False
            if self.steps[position] == _ANYWHERE:
                return True
            if not self._names[position].match(name):
                return False
        return len(path) < len(self.steps)


def _regex(steps: Iterable[str]) -> Iterable[str]:
    for step in steps:
        yield r"((?:/[^/]+)*?)" if step == _ANYWHERE else "/" + _name_regex(step)


def _name_regex(step: str) -> str:
    text = ""
    position = 0
    while position < len(step):
        sign = step[position]
        end = step.find("]", position + 2)
        if sign == "*":
            text += r"([^/]*)"
        elif sign == "?":
            text += r"([^/])"
        elif sign == "[" and end > 0:
            inside = step[position + 1 : end].replace("\\", r"\\").replace("!", "^", 1)
            text += f"([{inside}])"
            position = end
        else:
            text += re.escape(sign)
        position += 1
    return text


async def find_tags(
    session: Session, pattern: Pattern, progress: Callable[[int, int], None] = lambda _folders, _tags: None
) -> AsyncIterator[list[FoundTag]]:
    """Yield the variables that match, breadth first, in portions as they are found, each read once.

    progress: is told how many folders were read and how many tags were found
    """
    level: list[tuple[ua.NodeId, tuple[str, ...]]] = [(standard_node(ua.ObjectIds.ObjectsFolder), ())]
    seen: set[str] = set()
    folders = tags = 0
    while level:
        portion, level = level[:_BREADTH], level[_BREADTH:]
        for (_, path), children in zip(
            portion, await browse_children(session, [node for node, _ in portion]), strict=True
        ):
            folders += 1
            matches: list[tuple[Child, tuple[str, ...], tuple[str, ...]]] = []
            for child in children:
                below = (*path, child.name)
                key = str(child.node.to_string())
                if _is_standard(child) or len(below) > _DEPTH:
                    continue
                if child.node_class == ua.NodeClass.Variable:
                    captures = pattern.match(below)
                    if captures is not None:
                        matches.append((child, below, captures))
                if key not in seen and pattern.may_hold(below) and not _is_leaf(child):
                    seen.add(key)
                    level.append((child.node, below))
            for first in range(0, len(matches), _PORTION):
                found = await _read(session, matches[first : first + _PORTION])
                tags += len(found)
                yield found
                progress(folders, tags)
        progress(folders, tags)


def _is_standard(child: Child) -> bool:
    """Tell whether a node belongs to the standard: the server's own object and its like."""
    return child.namespace == _STANDARD and int(child.node.NamespaceIndex) == _STANDARD


def _is_leaf(child: Child) -> bool:
    """Tell whether a variable's own properties are not worth reading."""
    return child.node_class == ua.NodeClass.Variable


async def _read(
    session: Session, matches: Sequence[tuple[Child, tuple[str, ...], tuple[str, ...]]]
) -> list[FoundTag]:
    values = await session.read([child.node for child, _, _ in matches])
    found = []
    for (child, path, captures), value in zip(matches, values, strict=True):
        plain, status = plain_value(value)
        kind = value.Value.VariantType.name if value.Value is not None else "Null"
        if value.Value is not None and value.Value.is_array:
            kind += "[]"
        name = status_name(status)
        address = spelled(child.node, session.namespaces)
        found.append(FoundTag("/".join(map(step_of, path)), address, plain, kind, name, captures))
    return found


MACHINE_TAGS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("state", ("state", "status", "machinestate", "statecurrent", "mode")),
    ("total_units", ("totalunits", "total", "count", "counter", "prodprocessedcount", "produced", "units")),
    (
        "off_quality_units",
        ("offqualityunits", "offquality", "rejects", "reject", "scrap", "bad", "proddefectivecount"),
    ),
    ("good_units", ("goodunits", "good", "goodcount")),
    ("reason_code", ("faultcode", "reasoncode", "reason", "fault", "stopreason", "errorcode")),
    ("product", ("product", "productcode", "article", "recipe", "material")),
    ("order", ("order", "workorder", "orderid", "job")),
    ("operator", ("operator", "user")),
)
"""How PLCs like to call what a machine needs, without signs and case; the first match wins."""


def draft(tags: Iterable[FoundTag], area: str = "area", line: str = "line") -> str:
    """Return `[[connection.machine]]` tables for tags, one machine per folder that holds some of them.

    Known names become the fields they stand for; all others become further tags.
    """
    machines: dict[str, list[FoundTag]] = {}
    for tag in tags:
        machines.setdefault(tag.path.rpartition("/")[0], []).append(tag)
    return "\n".join(_machine(folder, found, area, line) for folder, found in machines.items())


def _machine(folder: str, tags: Sequence[FoundTag], area: str, line: str) -> str:
    levels = [_level(one) for one in folder.split("/") if one]
    name = levels[-1] if levels else "machine"
    line = levels[-2] if len(levels) > 1 else line
    area = levels[-3] if len(levels) > 2 else area
    text = f'[[connection.machine]]\narea = "{area}"\nline = "{line}"\nname = "{name}"\n'
    rest = list(tags)
    for field, names in MACHINE_TAGS:
        known = next((tag for tag in rest if _plain_name(tag) in names), None)
        if known is None:
            continue
        rest.remove(known)
        if field == "state":
            text += f"# now {known.value!r}: say which value means which state\n"
            text += (
                f'state = {{ node = {_quoted(known.address)}, map = {{ 0 = "stopped", 1 = "running" }} }}\n'
            )
        else:
            text += f"{field} = {_quoted(known.address)}\n"
    if "state = " not in text:
        text += "# no tag was recognised as the state: name it here\n"
        text += 'state = { node = "ns=0;i=0", map = { 0 = "stopped", 1 = "running" } }\n'
    for tag in rest:
        text += f"tags.{_level(tag.path.rpartition('/')[2])} = {_quoted(tag.address)}\n"
    return text


def _plain_name(tag: FoundTag) -> str:
    return re.sub(r"[^a-z0-9]", "", tag.path.rpartition("/")[2].lower())


def _level(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:64].strip("_") or "unnamed"


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
