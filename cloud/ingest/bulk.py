"""Reads telemetry of many messages at once, as columns; what is odd is left to the contract's reader.

A message is taken whole when nothing can be wrong with it: every key is known and stands once, every record
is of the topic it came on and not from the future. So whatever is taken here is what `decode_message` of the
contract would have accepted, and whatever is not goes there, to be refused by name or read the slow way.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud.ingest.entitlement import OPEN, Entitlement
from cloud.store.rows import Draft, Source, draft
from contract import topics
from contract.machine_key import MachineKey, is_level
from contract.telemetry import MAX_MESSAGE_BYTES, Telemetry

_MANY: Final = msgspec.json.Decoder(list[Telemetry])
_US_PER_SEC: Final = 1_000_000
Place = topics.MachineTopic | topics.GatewayTopic


class Bulk(NamedTuple):
    """What a batch of telemetry messages holds."""

    draft: Draft
    """The records of all messages that are beyond doubt."""
    odd: list[int]
    """The places of the other messages."""


def read(
    messages: Sequence[tuple[Place, bytes]],
    now_us: int,
    max_future_secs: float,
    entitlement: Entitlement = OPEN,
) -> Bulk:
    """Read messages of telemetry and backlog topics; nothing that a network could bring raises.

    now_us: [us since 1970] the reader's clock; records further ahead than max_future_secs are not taken
    entitlement: which gateway may speak for which machines; what another says is not taken
    """
    records: list[Telemetry] = []
    sizes = np.zeros(len(messages), dtype=np.int64)
    colons = np.zeros(len(messages), dtype=np.int64)
    odd: set[int] = set()
    for number, (place, payload) in enumerate(messages):
        found = _decoded(place, payload)
        if found is None:
            odd.add(number)
        else:
            records += found
            sizes[number], colons[number] = len(found), payload.count(b":")
    drafted = draft(records)
    message = np.repeat(np.arange(len(messages)), sizes)
    keys = np.bincount(message, weights=drafted.keys, minlength=len(messages)).astype(np.int64)
    doubtful = (drafted.rows["time_us"] >= now_us + max_future_secs * _US_PER_SEC - 1) | ~_is_placed(
        drafted.rows["machine"], drafted.sources, message, [place for place, _ in messages], entitlement
    )
    # A key that stands twice takes a colon more than the keys that were read, and so does one in a text.
    odd.update(np.flatnonzero(keys != colons).tolist(), np.unique(message[doubtful]).tolist())
    if odd:
        drafted = drafted.take(~np.isin(message, sorted(odd)))
    return Bulk(drafted, sorted(odd))


def _decoded(place: Place, payload: bytes) -> list[Telemetry] | None:
    """Return the records of one message; None where an escape may hide a colon, or nothing can be read."""
    is_one = place.channel == "telemetry"
    if len(payload) > MAX_MESSAGE_BYTES or b"\\" in payload:
        return None
    try:
        found = _MANY.decode(b"[" + payload + b"]" if is_one else payload)
    except (ValueError, RecursionError):
        return None
    return found if not is_one or len(found) == 1 else None


def _is_placed(
    source: NDArray[np.int32],
    sources: Sequence[Source],
    message: NDArray[np.int64],
    places: Sequence[Place],
    entitlement: Entitlement,
) -> NDArray[np.bool_]:
    """Tell for each record whether its names are names, and whether it may come on its message's topic."""
    topic_of = {place: number for number, place in enumerate(dict.fromkeys(places))}
    topic = np.array([topic_of[place] for place in places], dtype=np.int64)[message]
    pair, inverse = np.unique(topic * (len(sources) + 1) + source, return_inverse=True)
    named = [
        all(map(is_level, each)) and entitlement.allows(each[4], MachineKey(*each[:4])) for each in sources
    ]
    kinds = list(topic_of)
    allowed = [
        named[number] and _may_come(kinds[kind], sources[number])
        for kind, number in zip(*(part.tolist() for part in divmod(pair, len(sources) + 1)), strict=True)
    ]
    return np.array(allowed, dtype=np.bool_)[inverse]


def _may_come(place: Place, source: Source) -> bool:
    if isinstance(place, topics.MachineTopic):
        return tuple(place.machine) == source[:4]
    return (place.site, place.gateway) == (source[0], source[4])
