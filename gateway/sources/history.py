"""What a server has kept of its nodes' past values, read in portions."""

from collections.abc import Sequence
from typing import Any, Final

from asyncua import ua

from gateway.sources.port import BAD
from gateway.sources.session import Session
from gateway.sources.values import moment

_VALUES: Final = 10_000
"""In one answer, of all its nodes: to decode more at once would keep other PLCs waiting."""
_NOTHING: Final = frozenset({ua.StatusCodes.GoodNoData, ua.StatusCodes.BadNoData})


async def read_history(
    session: Session, nodes: Sequence[ua.NodeId], from_us: int, to_us: int
) -> list[list[ua.DataValue] | None]:
    """Return what the server's history has of each node in (from, to]; None where it keeps none."""
    details = ua.ReadRawModifiedDetails()
    details.IsReadModified = False
    details.StartTime = moment(from_us + 1)
    details.EndTime = moment(to_us)
    details.ReturnBounds = False

    async def ask(part: Sequence[ua.NodeId]) -> Sequence[list[ua.DataValue] | None]:
        found: list[list[ua.DataValue] | None] = [[] for _ in part]
        points: dict[int, bytes | None] = dict.fromkeys(range(len(part)))
        while points:
            details.NumValuesPerNode = ua.UInt32(max(1, _VALUES // len(points)))
            request = ua.HistoryReadRequest()
            request.Parameters.HistoryReadDetails = details
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.ReleaseContinuationPoints = False  # asyncua's default asks for nothing else
            request.Parameters.NodesToRead = [
                ua.HistoryReadValueId(NodeId=part[position], ContinuationPoint=point)
                for position, point in points.items()
            ]
            answer = await session.call(request, ua.HistoryReadResponse)
            left: dict[int, bytes | None] = {}
            for position, result in zip(points, answer.Results, strict=True):
                values = found[position]
                status = int(result.StatusCode.value)
                if values is None or (status >> 30 >= BAD and status not in _NOTHING):
                    found[position] = None
                    continue
                history: Any = result.HistoryData
                values += getattr(history, "DataValues", None) or []
                if result.ContinuationPoint:
                    left[position] = result.ContinuationPoint
            points = left
        return found

    kept = await session.read(nodes, ua.AttributeIds.Historizing)
    historized = [
        node for node, one in zip(nodes, kept, strict=True) if one.Value is not None and one.Value.Value
    ]
    found = iter(await session.in_chunks("history", historized, ask))
    return [next(found) if one.Value is not None and one.Value.Value else None for one in kept]
