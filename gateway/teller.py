"""What a gateway tells of itself: its status on MQTT and its health, from what runs now."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from contract.delivery import ConnectionStatus, Status
from gateway.config import Connection
from gateway.health import ConnectionHealth, Health, OutboxHealth, UplinkHealth, problems
from gateway.running import Running, Sending
from gateway.sources.port import SourceCounters
from gateway.telling import by_turns, encode_status
from gateway.uplinks.port import Will

_US: Final = 1_000_000
_MAX_STATUS_FAULTS: Final = 20


class Teller:
    """Tells of one gateway.

    clock_us: [us since 1970] our clock
    monotonic: [s] clock of paces and of how long it has run, which begins now
    """

    def __init__(self, running: Running, clock_us: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._running = running
        self._clock_us = clock_us
        self._monotonic = monotonic
        self._began_secs = monotonic()

    def note_pace(self) -> None:
        """Take note of what each connection has counted; to be called about once a second."""
        at_secs = self._monotonic()
        for reading in self._running.readings.values():
            counters = reading.source.counters
            reading.pace.note(at_secs, counters.notifications + counters.keepalives, counters.values)

    def status(self, uplink: str) -> Will:
        """Return what is said, retained, to one uplink while its session stands."""
        settings = self._running.configuration.gateway
        lanes = [self._running.pipeline.lanes[name] for name in self._running.readings]
        statistics = self._running.outbox.statistics()
        problem = statistics.alarm or self._running.last_error
        free_bytes, total_bytes = _disk_bytes(settings.data_dir)
        status = Status(
            gateway=settings.name,
            site=settings.site,
            online=True,
            epochtime=self._clock_us() / _US,
            version=self._running.version,
            first_sequence=statistics.first_sequence,
            connections=[self._connection_status(one) for one in self._running.configuration.connection],
            backlog_records=self._running.outbox.pending(uplink),
            backlog_bytes=statistics.bytes,
            oldest_epochtime=msgspec.UNSET if statistics.oldest_us is None else statistics.oldest_us / _US,
            dropped_records=sum(statistics.dropped.values()),
            backlog_limit_bytes=self._running.configuration.outbox.max_bytes,
            disk_free_bytes=free_bytes,
            disk_total_bytes=total_bytes,
            last_error=msgspec.UNSET if problem is None else problem[:256],
            accepts_commands=self._running.control.is_open,
            answers=list(self._running.control.answers),
            faults=sorted(
                (fault for lane in lanes for fault in lane.faults), key=lambda fault: fault.epochtime
            )[-_MAX_STATUS_FAULTS:],
            values=by_turns([list(lane.live_values(settings.status_values)) for lane in lanes]),
        )
        return Will(self._running.topic("status"), encode_status(status))

    def offline(self) -> Will:
        """Return what is said when the session ends, by us or by the broker."""
        settings = self._running.configuration.gateway
        status = Status(
            gateway=settings.name,
            site=settings.site,
            online=False,
            epochtime=self._clock_us() / _US,
            version=self._running.version,
        )
        return Will(self._running.topic("status"), msgspec.json.encode(status))

    def health(self) -> Health:
        """Return the state of everything, as of now."""
        connections = [self._connection_health(one) for one in self._running.configuration.connection]
        uplinks = [self._uplink_health(sending) for sending in self._running.sendings.values()]
        outbox = self._outbox_health()
        return Health(
            site=self._running.configuration.gateway.site,
            gateway=self._running.configuration.gateway.name,
            version=self._running.version,
            pid=os.getpid(),
            running_secs=self._monotonic() - self._began_secs,
            resident_bytes=_resident_bytes(),
            records=self._running.outbox.statistics().appended,
            problems=list(problems(connections, uplinks, outbox)),
            connections=connections,
            uplinks=uplinks,
            outbox=outbox,
        )

    def _connection_health(self, settings: Connection) -> ConnectionHealth:
        reading = self._running.readings.get(settings.name)
        lane = self._running.pipeline.lanes.get(settings.name)
        counters = reading.source.counters if reading is not None else SourceCounters()
        return ConnectionHealth(
            status=self._connection_status(settings),
            held_records=0 if lane is None else lane.held_drafts,
            **msgspec.structs.asdict(counters),
        )

    def _uplink_health(self, sending: Sending) -> UplinkHealth:
        counters, uplink = sending.forwarder.counters, sending.uplink
        return UplinkHealth(
            name=uplink.name,
            kind=sending.settings.kind,
            connected=uplink.connected,
            store_silent=sending.forwarder.store_silent,
            last_error=uplink.last_error,
            reconnects=uplink.reconnects,
            backlog_records=self._running.outbox.pending(uplink.name),
            **msgspec.structs.asdict(counters),
        )

    def _outbox_health(self) -> OutboxHealth:
        statistics = self._running.outbox.statistics()
        oldest_us = statistics.oldest_us
        return OutboxHealth(
            records=statistics.records,
            bytes=statistics.bytes,
            oldest_age_secs=None if oldest_us is None else max(0.0, (self._clock_us() - oldest_us) / _US),
            next_sequence=statistics.next_sequence,
            dropped={str(cause): amount for cause, amount in statistics.dropped.items()},
            quarantined=statistics.quarantined,
            damaged_files=statistics.damaged_files,
            alarm=statistics.alarm,
        )

    def _connection_status(self, settings: Connection) -> ConnectionStatus:
        """Return what is told of one connection, read or stopped."""
        reading = self._running.readings.get(settings.name)
        lane = self._running.pipeline.lanes.get(settings.name)
        heard = lane.heard_us / _US if lane is not None and lane.heard_us else msgspec.UNSET
        if reading is not None:
            messages, values = reading.pace.per_sec()
            return msgspec.structs.replace(
                reading.source.status,
                messages_per_sec=messages,
                values_per_sec=values,
                last_value_epochtime=heard,
            )
        stop = self._running.control.stopped(settings.name)
        return ConnectionStatus(
            name=settings.name,
            endpoint=settings.endpoint,
            state="stopped",
            since_epochtime=(self._clock_us() if stop is None else stop.since_us) / _US,
            items_wanted=0 if lane is None else len(lane.bindings),
            stopped_by=msgspec.UNSET if stop is None else stop.by,
            last_value_epochtime=heard,
        )


def _resident_bytes() -> int:
    """Return the memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0


def _disk_bytes(folder: Path) -> tuple[int | msgspec.UnsetType, int | msgspec.UnsetType]:
    """Return the free and the whole space of a folder's disk; nothing where the system does not tell."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return msgspec.UNSET, msgspec.UNSET
    return usage.free, usage.total
