"""Node addresses of the configuration, resolved on a living server: ids, namespace URIs, browse paths."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from asyncua import ua

from gateway.errors import SourceError
from gateway.sources.errors import mapped
from gateway.sources.session import Session, standard_node

_STEP: Final = re.compile(r"/((?:[^/&]|&.)+)", re.DOTALL)
_REFERENCES: Final = 1000
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
    """Return the children of each node by hierarchical references; none for a node that cannot be browsed."""

    async def ask(part: Sequence[ua.NodeId]) -> Sequence[list[Child]]:
        request = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = ua.UInt32(_REFERENCES)
        request.Parameters.NodesToBrowse = [_description(node) for node in part]
        answer = await session.call(request, ua.BrowseResponse)
        found = [list(map(_child, result.References or [])) for result in answer.Results]
        points = {
            position: result.ContinuationPoint
            for position, result in enumerate(answer.Results)
            if result.ContinuationPoint
        }
        while points:
            following = ua.BrowseNextRequest()
            following.Parameters.ContinuationPoints = list(points.values())
            more = await session.call(following, ua.BrowseNextResponse)
            left = {}
            for position, result in zip(points, more.Parameters.Results, strict=False):
                found[position] += map(_child, result.References or [])
                if result.ContinuationPoint:
                    left[position] = result.ContinuationPoint
            points = left
        return found

    return await session.in_chunks("browse", nodes, ask)


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
