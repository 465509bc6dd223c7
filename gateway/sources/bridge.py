"""From a lost subscription to the next one over the server's history: what it has whole is no gap."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua

from gateway.errors import SourceError
from gateway.sources.columns import Columns
from gateway.sources.history import BEFORE_US, TooMuchHistoryError, read_history
from gateway.sources.reconciler import Item
from gateway.sources.session import Session, standard_node
from gateway.sources.values import add_value, moment_us
from gateway.tags import Role

_log = logging.getLogger(__name__)

_US: Final = 1_000_000
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


async def bridge(
    session: Session, items: Sequence[Item], told: Told, unheard_us: int
) -> AsyncGenerator[Bridge, None]:
    """Yield what a server that has run all the time knows of the time in which it was not listened to.

    That comes for all machines at once, or for some after the other where it is much.

    items: live already, so that what comes after the history comes by them
    unheard_us: [us] for how long it was not listened to

    A machine is whole when each tag that counts shows either what was told of it last, by its time, or what
    is in its history.
    """
    known = [item for item in items if item.node is not None and told.at_us.get(item.binding.handle, 0) > 0]
    if not known:
        return
    try:
        began_us, until_us = await _life(session)
        if not 0 < began_us < until_us - unheard_us:
            return  # what it was not there to see is in no history of its own
        since_us = max(told.at_us[item.binding.handle] for item in known) - BEFORE_US
        waiting = [sorted({item.binding.machine for item in items})]
        while waiting:
            machines = waiting.pop()
            some = [item for item in items if item.binding.machine in machines]
            try:
                found = await _patiently(session, some, told, since_us, until_us)
            except TooMuchHistoryError as error:
                half = len(machines) // 2
                if half:
                    waiting += [machines[half:], machines[:half]]
                else:
                    _log.warning("what was missed of a machine cannot be had: %s", error)
                continue
            yield found
    except SourceError as error:
        _log.info("the server's history cannot be read: %s", error)


async def _patiently(
    session: Session, items: Sequence[Item], told: Told, since_us: int, until_us: int
) -> Bridge:
    """Look for what was missed, again where a server is behind with its history."""
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE_SECS)
        found = await _look(session, items, told, since_us, until_us + (attempt + 1) * _US)
        if len(found.whole) == len(items):
            break
    return found


async def server_time_us(session: Session) -> int | None:
    """Return what a server takes for the present [us since 1970]; None where it does not tell."""
    _, present_us = await _life(session)
    return present_us or None


async def _life(session: Session) -> tuple[int, int]:
    """Return since when a server runs, and its present [us, its clock]; 0 for what it does not tell."""
    nodes = [ua.ObjectIds.Server_ServerStatus_StartTime, ua.ObjectIds.Server_ServerStatus_CurrentTime]
    began, present = await session.read([standard_node(node) for node in nodes])
    return moment_us(began), moment_us(present)


async def _look(session: Session, items: Sequence[Item], told: Told, since_us: int, until_us: int) -> Bridge:
    nodes = [
        (item.binding.handle, item.node)
        for item in items
        if item.node is not None and told.at_us.get(item.binding.handle, 0) > 0
    ]
    shown = Columns()
    for (handle, _), value in zip(nodes, await session.read([node for _, node in nodes]), strict=True):
        add_value(shown, handle, value)
    missed = Columns()
    sure: set[int] = set()
    kept = await read_history(session, nodes, since_us, until_us)
    for place, (handle, past) in enumerate(zip(shown.handles, kept, strict=True)):
        at_us, now_us = told.at_us[handle], shown.source_us[place]
        fresh = past or Columns()
        fresh.keep([row for row, stamp in enumerate(fresh.source_us) if stamp > at_us])
        is_same = now_us == at_us and told.last(handle) == (shown.values[place], shown.statuses[place])
        if is_same or now_us in fresh.source_us:
            sure.add(handle)
            missed.extend(fresh)
    doubtful = {
        item.binding.machine
        for item in items
        if item.binding.role is not Role.ANALOGUE and item.binding.handle not in sure
    }
    whole = frozenset(item.binding.handle for item in items if item.binding.machine not in doubtful)
    missed.keep([place for place, handle in enumerate(missed.handles) if handle in whole])
    rows = zip(shown.handles, shown.source_us, shown.values, strict=True)
    return Bridge(missed, whole, {row for row in rows if row[0] in whole}, until_us)
