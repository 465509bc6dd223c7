"""Node addresses of the configuration, resolved on a living server: ids, namespace URIs, browse paths."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from asyncua import ua

from gateway.errors import SourceError
from gateway.sources.errors import mapped
from gateway.sources.session import Session, standard_node

_STEP: Final = re.compile(r"/((?:[^/&]|&.)+)", re.DOTALL)
_REFERENCES: Final = 100
"""Of one node in one answer; large answers take long to decode, and nothing else goes on meanwhile."""
_CUT: Final = frozenset({ua.StatusCodes.BadNoContinuationPoints, ua.StatusCodes.BadContinuationPointInvalid})
"""Children of one node in one answer: more would keep us from everything else while they are decoded."""
_INDEXED: Final = re.compile(r"(\d{1,5}):(.*)", re.DOTALL)


class Unresolved(NamedTuple):
    """Why an address has no node now."""

    status: int
    reason: str


class Child(NamedTuple):
    """A node as its parent shows it."""

    node: ua.NodeId
    namespace: int
    name: str
    node_class: ua.NodeClass


async def resolve(session: Session, addresses: Iterable[str]) -> dict[str, ua.NodeId | Unresolved]:
    """Return the node of each address under the server's present namespaces.

    An id is taken apart without asking the server, so that it may not exist; a browse path is walked.
    """
    found: dict[str, ua.NodeId | Unresolved] = {}
    walker = Walker(session)
    for address in dict.fromkeys(addresses):
        if address.startswith("/"):
            found[address] = await walker.walk(address)
        else:
            found[address] = parse(address, session.namespaces)
    return found


def parse(address: str, namespaces: Sequence[str]) -> ua.NodeId | Unresolved:
    """Read `nsu=URI;s=NAME`, `ns=2;s=NAME` or `i=85`."""
    text = address
    if address.startswith("nsu="):
        uri, _, rest = address[4:].partition(";")
        if uri not in namespaces:
            return Unresolved(
                ua.StatusCodes.BadNodeIdUnknown,
                f"the server has no namespace {uri}; it has {', '.join(namespaces[1:]) or 'none of its own'}",
            )
        text = f"ns={namespaces.index(uri)};{rest}"
    try:
        with mapped(address):
            return ua.NodeId.from_string(text)
    except SourceError as error:
        return Unresolved(ua.StatusCodes.BadNodeIdInvalid, str(error))


def spelled(node: ua.NodeId, namespaces: Sequence[str]) -> str:
    """Return the address of a node that stays true when namespace indexes change."""
    text = str(node.to_string())
    index = int(node.NamespaceIndex)
    if 0 < index < len(namespaces):
        return f"nsu={namespaces[index]};{text.partition(';')[2]}"
    return text


class Walker:
    """Walks browse paths from the root, and remembers each folder that it has read."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._children: dict[str, list[Child]] = {}

    async def walk(self, path: str) -> ua.NodeId | Unresolved:
        """Return the node at a path such as `/Objects/Line/2:Machine`; `&` escapes the sign after it."""
        node = standard_node(ua.ObjectIds.RootFolder)
        walked = ""
        for step in steps(path):
            match = _INDEXED.fullmatch(step)
            index, name = (int(match[1]), match[2]) if match else (None, step)
            children = await self.children(node)
            named = [one for one in children if one.name == name and index in (None, one.namespace)]
            if len(named) != 1:
                why = f"{len(named)} nodes are called" if named else "there is no"
                return Unresolved(ua.StatusCodes.BadNoMatch, f"{why} {name!r} under {walked or 'the root'}")
            node = named[0].node
            walked += f"/{step}"
        return node

    async def children(self, node: ua.NodeId) -> list[Child]:
        """Return what a node organises or consists of."""
        key = str(node.to_string())
        if key not in self._children:
            self._children[key] = (await browse_children(self._session, [node]))[0]
        return self._children[key]


def steps(path: str) -> list[str]:
    """Take a browse path apart and its escapes away."""
    return [re.sub(r"&(.)", r"\1", step, flags=re.DOTALL) for step in _STEP.findall(path)]


def step_of(name: str) -> str:
    """Return a name as a step of a browse path, with its special signs escaped."""
    return re.sub(r"([/&])", r"&\1", name)


async def browse_children(session: Session, nodes: Sequence[ua.NodeId]) -> list[list[Child]]:
    """Return the children of each node by hierarchical references; none for a node that cannot be browsed.

    Raises SourceError when a server gives only some of them and no way to the others.
    """

    async def ask(part: Sequence[ua.NodeId]) -> Sequence[list[Child]]:
        found, cut = await _browse(session, part)
        for position in cut:  # the server has few continuation points: one node at a time needs only one
            (found[position],), still = await _browse(session, [part[position]])
            if still:
                raise SourceError(f"the server lists only a part of what {part[position].to_string()} holds")
        return found

    return await session.in_chunks("browse", nodes, ask)


async def _browse(session: Session, nodes: Sequence[ua.NodeId]) -> tuple[list[list[Child]], list[int]]:
    """Return the children of each node, and the positions of those that the server has not listed whole."""
    request = ua.BrowseRequest()
    request.Parameters.RequestedMaxReferencesPerNode = ua.UInt32(_REFERENCES)
    request.Parameters.NodesToBrowse = [_description(node) for node in nodes]
    results = (await session.call(request, ua.BrowseResponse)).Results
    found: list[list[Child]] = [[] for _ in nodes]
    cut: list[int] = []
    asked: Sequence[int] = range(len(nodes))
    while True:
        if len(results) != len(asked):
            raise SourceError(f"the server gave {len(results)} answers to {len(asked)} questions (browse)")
        points: dict[int, bytes] = {}
        for position, result in zip(asked, results, strict=True):
            found[position] += map(_child, result.References or [])
            if result.ContinuationPoint:
                points[position] = result.ContinuationPoint
            elif int(result.StatusCode.value) in _CUT:
                cut.append(position)
        if not points:
            return found, cut
        following = ua.BrowseNextRequest()
        following.Parameters.ReleaseContinuationPoints = False  # the library would throw the rest away
        following.Parameters.ContinuationPoints = list(points.values())
        asked, results = (
            list(points),
            (await session.call(following, ua.BrowseNextResponse)).Parameters.Results,
        )


def _description(node: ua.NodeId) -> ua.BrowseDescription:
    wanted = ua.BrowseDescription()
    wanted.NodeId = node
    wanted.BrowseDirection = ua.BrowseDirection.Forward
    wanted.ReferenceTypeId = standard_node(ua.ObjectIds.HierarchicalReferences)
    wanted.IncludeSubtypes = True
    wanted.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    wanted.ResultMask = ua.BrowseResultMask.All
    return wanted


def _child(reference: ua.ReferenceDescription) -> Child:
    name = reference.BrowseName
    node = reference.NodeId
    return Child(
        ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType),
        int(name.NamespaceIndex),
        str(name.Name),
        reference.NodeClass,
    )
