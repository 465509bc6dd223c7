"""Puts figures, receipts and events on MQTT."""

import contextlib
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from cloud.errors import StoreError
from cloud.ingest.mqtt import Broker
from cloud.live import Picture
from cloud.store.port import ClosedShift, Store
from contract import topics
from contract.delivery import Result, Shift
from contract.machine_key import MachineKey

_EVENTS_AT_ONCE: Final = 100
_REACHED: Final = "mqtt:shifts"
"""The note of how far revisions of closed shifts are at the broker."""


class Publisher:
    """Publishes in the loop's thread; an event stays in the store until the broker has it."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self._broker = broker
        self._store = store
        self._ahead: set[int] = set()
        """Positions of revisions that the broker was given and has not taken yet."""
        self._reached = self._begin()
        self._noted = self._reached

    def receipts(self) -> None:
        """Publish again how far each gateway is stored."""
        for (site, gateway), _, _, receipt in self._store.gateways():
            self._broker.publish_retained(
                topics.gateway_topic(site, gateway, "receipt"), msgspec.json.encode(receipt)
            )

    def figures(
        self,
        before: Picture,
        picture: Picture,
        closed: Iterable[ClosedShift],
        last_closed: Mapping[str, dict[str, Any]],
    ) -> None:
        """Publish what has changed since the picture before, and the events that wait in the store.

        closed: the shifts that were closed or revised since
        last_closed: by scope, the figures of its last closed shift
        """
        revised = {shift.scope for shift in closed}
        for key, view in picture.machines.items():
            if view.in_plant and (before.machines.get(key) != view or str(key) in revised):
                result = Result(
                    epochtime=picture.at_us / 1e6,
                    current=view.figures,
                    closed=last_closed.get(str(key)),
                )
                self._broker.publish_retained(topics.machine_topic(key, "oee"), msgspec.json.encode(result))
        for event in self._store.events(_EVENTS_AT_ONCE):
            self._broker.publish_event(
                str(event.id), event.topic, event.payload, functools.partial(self._forget, event.id)
            )
        self._publish_shifts()

    def _begin(self) -> int:
        """Return which revision is at the broker already; those from before this was published are none."""
        note = self._store.note(_REACHED)
        if note is not None:
            return int(note)
        end = self._store.closed_end()
        self._store.set_note(_REACHED, str(end).encode())
        return end

    def _publish_shifts(self) -> None:
        """Publish the next revisions of closed shifts once the broker has taken those before."""
        if self._ahead:
            return
        if self._reached != self._noted:
            self._store.set_note(_REACHED, str(self._reached).encode())
            self._noted = self._reached
        for position, shift in self._store.closed_after(self._reached, _EVENTS_AT_ONCE):
            said = Shift(
                epochtime=shift.revision.made_epochtime,
                revision=shift.revision.revision,
                why=shift.revision.why,
                figures=shift.revision.figures,
            )
            self._ahead.add(position)
            self._reached = position
            self._broker.publish_event(
                f"shift {position}",
                _topic_of(shift.scope),
                msgspec.json.encode(said),
                functools.partial(self._ahead.discard, position),
            )

    def _forget(self, event: int) -> None:
        with contextlib.suppress(StoreError):  # then it is sent once more
            self._store.event_sent(event)


def _topic_of(scope: str) -> str:
    """Return the topic of the shifts of a machine or a line."""
    levels = scope.split("/")
    if len(levels) == len(MachineKey._fields):
        return topics.machine_topic(MachineKey(*levels), "shift")
    site, area, line = levels
    return topics.line_topic(site, area, line, "shift")
