"""The tags of a PLC, found by a pattern over their browse paths, without ever blocking on their number."""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

from asyncua import ua

from gateway.sources.addresses import Child, browse_children, spelled, step_of
from gateway.sources.draft import FoundTag
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
_SHOWN: Final = 8
"""How many members of an array are shown."""


_Match = tuple[Child, tuple[str, ...], tuple[str, ...]]
"""A variable, its path, and what the wildcards stand for."""


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
        matches: list[_Match] = []
        for (_, path), children in zip(
            portion, await browse_children(session, [node for node, _ in portion]), strict=True
        ):
            folders += 1
            for child in children:
                below = (*path, child.name)
                if _is_standard(child) or len(below) > _DEPTH:
                    continue
                if child.node_class == ua.NodeClass.Variable:
                    captures = pattern.match(below)
                    if captures is not None:
                        matches.append((child, below, captures))
                elif pattern.may_hold(below) and (key := str(child.node.to_string())) not in seen:
                    seen.add(key)
                    level.append((child.node, below))
        progress(folders, tags)
        for first in range(0, len(matches), _PORTION):
            found = await _read(session, matches[first : first + _PORTION])
            tags += len(found)
            progress(folders, tags)
            yield found


def _is_standard(child: Child) -> bool:
    """Tell whether a node belongs to the standard: the server's own object and its like."""
    return child.namespace == _STANDARD and int(child.node.NamespaceIndex) == _STANDARD


async def _read(session: Session, matches: Sequence[_Match]) -> list[FoundTag]:
    values = await session.read([child.node for child, _, _ in matches])
    found = []
    for (child, path, captures), value in zip(matches, values, strict=True):
        plain, status = plain_value(value)
        kind = value.Value.VariantType.name if value.Value is not None else "Null"
        if value.Value is not None and value.Value.is_array:
            kind += "[]"
        content = value.Value.Value if value.Value is not None else None
        other = ""
        if plain is None and content is not None:  # what the tag is shows here, not what we cannot make of it
            other = _looks(content)
            status = int(value.StatusCode.value) if value.StatusCode is not None else 0
        found.append(
            FoundTag(
                path="/".join(map(step_of, path)),
                address=spelled(child.node, session.namespaces),
                value=plain,
                type=kind,
                status=status_name(status),
                captures=captures,
                other=other,
            )
        )
    return found


def _looks(content: object) -> str:
    """Return the beginning of a value of any kind as a text."""
    if isinstance(content, list):
        more = ", ..." if len(content) > _SHOWN else ""
        return f"[{', '.join(map(_looks, content[:_SHOWN]))}{more}]"
    if isinstance(content, bytes):
        return content[: 2 * _SHOWN].hex(" ")
    return str(content)[:200]
