"""What a server has kept of its nodes' past values, read in portions."""

from collections.abc import Sequence
from typing import Any, Final

from asyncua import ua

from gateway.errors import SourceError
from gateway.sources.columns import Columns
from gateway.sources.port import BAD
from gateway.sources.session import Session
from gateway.sources.values import add_value, moment

MAX_VALUES: Final = 100_000
"""Of all nodes that are asked for together: they are kept in memory until they are on disk."""
BEFORE_US: Final = 10_000_000
"""How far before the newest value that was told another tag's may lie that was not."""
_VALUES: Final = 10_000
"""In one answer, of all its nodes: to decode more at once would keep other PLCs waiting."""
_NOTHING: Final = frozenset({ua.StatusCodes.GoodNoData, ua.StatusCodes.BadNoData})


class TooMuchHistoryError(SourceError):
    """The history has more than MAX_VALUES."""


async def read_history(
    session: Session, nodes: Sequence[tuple[int, ua.NodeId]], from_us: int, to_us: int
) -> list[Columns | None]:
    """Return what the server's history has of each node in (from, to]; None where it keeps none.

    nodes: each with the handle under which its values are to be returned

    Raises TooMuchHistoryError, and SourceError where the server gives no answer.
    """
    details = ua.ReadRawModifiedDetails()
    details.IsReadModified = False
    details.StartTime = moment(from_us + 1)
    details.EndTime = moment(to_us)
    details.ReturnBounds = False
    count = 0

    async def ask(part: Sequence[tuple[int, ua.NodeId]]) -> Sequence[Columns | None]:
        nonlocal count
        found: list[Columns | None] = [Columns() for _ in part]
        points: dict[int, bytes | None] = dict.fromkeys(range(len(part)))
        while points:
            before = count
            details.NumValuesPerNode = ua.UInt32(max(1, _VALUES // len(points)))
            request = _request(details, [(part[place][1], point) for place, point in points.items()])
            answer = await session.call(request, ua.HistoryReadResponse)
            left: dict[int, bytes | None] = {}
            for position, result in zip(points, answer.Results, strict=True):
                values = found[position]
                status = int(result.StatusCode.value)
                if values is None or (status >> 30 >= BAD and status not in _NOTHING):
                    found[position] = None
                    continue
                history: Any = result.HistoryData
                for value in getattr(history, "DataValues", None) or ():
                    add_value(values, part[position][0], value)
                    count += 1
                if result.ContinuationPoint:
                    left[position] = result.ContinuationPoint
            points = left
            if points and (count > MAX_VALUES or count == before):
                ended = _request(details, [(part[place][1], point) for place, point in points.items()])
                ended.Parameters.ReleaseContinuationPoints = True
                await session.call(ended, ua.HistoryReadResponse)
                if count == before:
                    raise SourceError("the server goes on with its history without telling any")
            if count > MAX_VALUES:
                raise TooMuchHistoryError(f"the history has more than {MAX_VALUES} values")
        return found

    kept = await session.read([node for _, node in nodes], ua.AttributeIds.Historizing)
    historized = [
        node for node, one in zip(nodes, kept, strict=True) if one.Value is not None and one.Value.Value
    ]
    found = iter(await session.in_chunks("history", historized, ask))
    return [next(found) if one.Value is not None and one.Value.Value else None for one in kept]


def _request(
    details: ua.ReadRawModifiedDetails, nodes: Sequence[tuple[ua.NodeId, bytes | None]]
) -> ua.HistoryReadRequest:
    """Return the question for what follows each node's continuation point."""
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = details
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    request.Parameters.ReleaseContinuationPoints = False  # asyncua's default asks for nothing else
    request.Parameters.NodesToRead = [
        ua.HistoryReadValueId(NodeId=node, ContinuationPoint=point) for node, point in nodes
    ]
    return request
