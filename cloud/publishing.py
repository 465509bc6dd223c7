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
from contract.delivery import Result

_EVENTS_AT_ONCE: Final = 100


class Publisher:
    """Publishes in the loop's thread; an event stays in the store until the broker has it."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self._broker = broker
        self._store = store

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

    def _forget(self, event: int) -> None:
        with contextlib.suppress(StoreError):  # then it is sent once more
            self._store.event_sent(event)
