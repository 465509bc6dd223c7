"""Turns what the broker brought into records to store and refusals to keep."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cloud.ingest import bulk
from cloud.ingest.entitlement import OPEN, Entitlement
from cloud.store.port import Arrivals, DeadLetter
from contract import topics
from contract.delivery import Gap, Status, decode_gap, decode_status
from contract.telemetry import Refusal, Telemetry, decode_message, encode


class Message(NamedTuple):
    """One message as the broker brought it."""

    topic: str
    payload: bytes
    packet: int = 0
    """What an acknowledgement names it by; of meaning within one connection only."""
    qos: int = 0
    connection: int = 0
    """Which of our connections it came on."""
    was_kept: bool = False
    """Whether the broker had kept it from before we subscribed: nobody says how old it is."""


class Received(NamedTuple):
    """What a batch of messages holds."""

    arrivals: Arrivals
    statuses: dict[tuple[str, str], Status]
    """The newest status of each (site, gateway) that sent one."""
    just_said: frozenset[tuple[str, str]]
    """Those of them that were sent just now."""


def receive(
    messages: Sequence[Message], now_us: int, max_future_secs: float, entitlement: Entitlement = OPEN
) -> Received:
    """Read messages; nothing that a network could bring raises.

    now_us: [us since 1970] the reader's clock; records further ahead than max_future_secs are refused
    entitlement: which gateway may speak for which machines; what another says is refused
    """
    records: list[Telemetry] = []
    gaps: list[Gap] = []
    dead: list[DeadLetter] = []
    statuses: dict[tuple[str, str], Status] = {}
    just_said: set[tuple[str, str]] = set()
    telemetry, others = _parted(messages)
    found = bulk.read(
        [(place, message.payload) for message, place in telemetry], now_us, max_future_secs, entitlement
    )
    others += [telemetry[number][0] for number in found.odd]
    for message in others:
        for item in _items(message, now_us, max_future_secs):
            fault = None if isinstance(item, Refusal) else entitlement.fault(item)
            match item:
                case Telemetry() | Gap() | Status() if fault is not None:
                    dead.append(DeadLetter(now_us, message.topic, fault, _alone(item)))
                case Telemetry():
                    records.append(item)
                case Gap():
                    gaps.append(item)
                case Status():
                    statuses[item.site, item.gateway] = item
                    if not message.was_kept:
                        just_said.add((item.site, item.gateway))
                case Refusal():
                    dead.append(DeadLetter(now_us, message.topic, item.reason, item.payload))
    return Received(Arrivals(records, gaps, dead, [found.draft]), statuses, frozenset(just_said))


def _parted(messages: Sequence[Message]) -> tuple[list[tuple[Message, bulk.Place]], list[Message]]:
    """Return the messages on topics of telemetry, with their topics' parts, and all others."""
    telemetry: list[tuple[Message, bulk.Place]] = []
    others: list[Message] = []
    for message in messages:
        place = _place(message.topic)
        if place is not None and place.channel in ("telemetry", "backlog"):
            telemetry.append((message, place))
        else:
            others.append(message)
    return telemetry, others


def _items(
    message: Message, now_us: int, max_future_secs: float
) -> Sequence[Telemetry | Gap | Status | Refusal]:
    """Read one message as strictly as the contract says."""
    topic, payload = message.topic, message.payload
    place = _place(topic)
    match "" if place is None else place.channel:
        case "status" if not payload:
            return []  # a retained status was taken back
        case "status":
            return [decode_status(topic, payload)]
        case "gap":
            return [decode_gap(topic, payload, now_us=now_us, max_future_secs=max_future_secs)]
        case _:
            return decode_message(topic, payload, now_us=now_us, max_future_secs=max_future_secs)


def _alone(item: Telemetry | Gap | Status) -> bytes:
    """Return one item of a message, which may have held others, as JSON."""
    return encode(item) if isinstance(item, Telemetry) else msgspec.json.encode(item)


def _place(topic: str) -> bulk.Place | None:
    try:
        place = topics.parse(topic)
    except ValueError:
        return None
    return None if isinstance(place, topics.PlaceTopic) else place
