"""From a lost subscription to the next one over the server's history: what it has whole is no gap."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua

from gateway.errors import SourceError
from gateway.sources.columns import Columns
from gateway.sources.history import read_history
from gateway.sources.reconciler import Item
from gateway.sources.session import Session, standard_node
from gateway.sources.values import add_value, epoch_us, stamp_us
from gateway.tags import Role

_log = logging.getLogger(__name__)

_US: Final = 1_000_000
_BEFORE_US: Final = 10 * _US
"""How far before the newest value that was told another tag's may lie that was not."""
_TRIES: Final = 3
_PAUSE_SECS: Final = 0.25
"""Some servers write their history a little later than they show a value."""


@dataclass(frozen=True, slots=True)
class Told:
    """What had come of each tag, by its handle.

    at_us: [us since 1970] source time of its last value
    last: returns that value and its status
    """

    at_us: Mapping[int, int]
    last: Callable[[int], tuple[object, int] | None]


@dataclass(slots=True)
class Bridge:
    """What was missed and is known after all.

    missed: values since those that were told, tag by tag
    whole: handles of the machines of which nothing is missing
    shown: what each tag shows now: handle, source time, value
    until_us: [us, the server's clock] when the history was read
    """

    missed: Columns = field(default_factory=Columns)
    whole: frozenset[int] = frozenset()
    shown: set[tuple[int, int, Any]] = field(default_factory=set)
    until_us: int = 0


async def bridge(session: Session, items: Sequence[Item], told: Told, unheard_us: int) -> Bridge:
    """Read what a server that has run all the time knows of the time in which it was not listened to.

    items: live already, so that what comes after the history comes by them
    unheard_us: [us] for how long it was not listened to

    A machine is whole when each tag that counts shows either what was told of it last, by its time, or what
    is in its history.
    """
    known = [item for item in items if item.node is not None and told.at_us.get(item.binding.handle, 0) > 0]
    if not known:
        return Bridge()
    try:
        began_us, until_us = await _life(session)
        if not 0 < began_us < until_us - unheard_us:
            return Bridge()  # what it was not there to see is in no history of its own
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE_SECS)
            found = await _look(session, items, known, told, until_us + (attempt + 1) * _US)
            if len(found.whole) == len(items):
                break
    except SourceError as error:
        _log.info("the server's history cannot be read: %s", error)
        return Bridge()
    return found


async def server_time_us(session: Session) -> int | None:
    """Return what a server takes for the present [us since 1970]; None where it does not tell."""
    _, present_us = await _life(session)
    return present_us or None


async def _life(session: Session) -> tuple[int, int]:
    """Return since when a server runs, and its present [us, its clock]; 0 for what it does not tell."""
    nodes = [ua.ObjectIds.Server_ServerStatus_StartTime, ua.ObjectIds.Server_ServerStatus_CurrentTime]
    values = await session.read([standard_node(node) for node in nodes])
    began, present = (
        epoch_us(said) if isinstance(said := one.Value and one.Value.Value, dt.datetime) else 0
        for one in values
    )
    return began, present


async def _look(
    session: Session, items: Sequence[Item], known: Sequence[Item], told: Told, until_us: int
) -> Bridge:
    nodes = [item.node for item in known if item.node is not None]
    shown = Columns()
    for item, value in zip(known, await session.read(nodes), strict=True):
        add_value(shown, item.binding.handle, value)
    since_us = max(told.at_us[item.binding.handle] for item in known) - _BEFORE_US
    kept = await read_history(session, nodes, since_us, until_us)
    missed = Columns()
    sure: set[int] = set()
    for place, (handle, values) in enumerate(zip(shown.handles, kept, strict=True)):
        at_us, now_us = told.at_us[handle], shown.source_us[place]
        fresh = [one for one in values or () if stamp_us(one) > at_us]
        is_same = now_us == at_us and told.last(handle) == (shown.values[place], shown.statuses[place])
        if is_same or any(stamp_us(one) == now_us for one in fresh):
            sure.add(handle)
            for one in fresh:
                add_value(missed, handle, one)
    doubtful = {
        item.binding.machine
        for item in items
        if item.binding.role is not Role.ANALOGUE and item.binding.handle not in sure
    }
    whole = frozenset(item.binding.handle for item in items if item.binding.machine not in doubtful)
    missed.keep([place for place, handle in enumerate(missed.handles) if handle in whole])
    rows = zip(shown.handles, shown.source_us, shown.values, strict=True)
    return Bridge(missed, whole, {row for row in rows if row[0] in whole}, until_us)
