"""What is in force and known now: plant, running shifts, alerts, shifts that are due, the board of it all."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import structlog

from cloud import locks
from cloud.alerts.desk import AlertDesk
from cloud.clock import thread_cpu_us
from cloud.closing import Closing
from cloud.config import CloudTable
from cloud.evaluation import Evaluation
from cloud.live import Live, Picture
from cloud.oee.calendar import shift_at
from cloud.oee.figures import iso_utc
from cloud.plant import Plant
from cloud.store.port import Appended, ClosedShift, Store
from cloud.store.rows import US_PER_HOUR
from cloud.views import AlertView, BoardView, HealthView, MachineView
from contract.machine_key import MachineKey

_LOCK_EVERY_US: Final = 30_000_000

_log = structlog.get_logger("cloud.service")


class Present:
    """Looked at anew in the live thread; what it shows may be read from any."""

    def __init__(
        self,
        settings: CloudTable,
        plant: Plant,
        store: Store,
        desk: AlertDesk,
        *,
        with_shifts: Callable[[Plant], Plant],
        is_schedule_new: Callable[[], bool],
        watching_since_us: Callable[[], int | None],
        health: Callable[[Picture], HealthView],
        now_us: Callable[[], int],
    ) -> None:
        """Put a plant in force.

        plant: as plant.toml says it
        with_shifts: adds what planning systems say
        is_schedule_new: tells, once, whether they say something else by now
        watching_since_us: since when we hear what gateways say; None while we do not
        health: how the service does, beside a picture
        """
        self._settings = settings
        self._store = store
        self._desk = desk
        self._with_shifts = with_shifts
        self._is_schedule_new = is_schedule_new
        self._watching_since_us = watching_since_us
        self._health = health
        self._now_us = now_us
        self.base_plant = plant
        """As plant.toml says it, without what planning systems add."""
        self.on_renewed: Callable[[], None] = lambda: None
        """Called when another plant is in force."""
        self.heard_us: dict[tuple[str, str], int] = {}
        """By gateway: the newest moment that a record of it is of, since the start."""
        self.last_closed: dict[str, dict[str, Any]] = {}
        """By scope: the figures of the last closed shift."""
        self._locked_us = 0
        """When the store was last told what is locked."""
        self._marks_seen: dict[tuple[int, int], int] = {}
        self._take(with_shifts(plant))

    def add(self, appended: Appended) -> None:
        """Take in records that were stored just now, in the store's thread."""
        fresh = appended.fresh
        self.live.add(fresh)
        for gateway in np.unique(fresh["gateway"]).tolist():
            newest_us = int(fresh["time_us"][fresh["gateway"] == gateway].max())
            name = self._store.names.name("gateway", gateway)
            self.heard_us[name] = max(newest_us, self.heard_us.get(name, 0))

    def look(self) -> list[ClosedShift]:
        """Renew the picture, judge alerts and close what is due; in the live thread."""
        now_us = self._now_us()
        if self._is_schedule_new():
            self.renew()
            _log.info("shifts are as the planning system says")
        self._look_for_others()
        self._lock(now_us)
        self.picture = self.live.look(now_us)
        self._set_marks(now_us)
        self._desk.judge(self.picture, self.live, self._watching_since_us(), now_us)
        closed: list[ClosedShift] = []
        deadline = time.monotonic() + 0.5 * self._settings.live_interval_secs
        while True:
            began = time.monotonic()
            step = self.closing.step(now_us)
            closed += step.shifts
            ended = time.monotonic()
            if step.is_done or ended + (ended - began) > deadline:  # the next one may take as long
                break
        for shift in closed:
            self._note_closed(shift, now_us)
        self.board = self._make_board(self.picture)
        return closed

    def renew(self) -> None:
        """Put plant.toml in force with the shifts that planning systems say, and tell everybody."""
        self._take(self._with_shifts(self.base_plant))
        self.live.cut_anew()  # what was stored while it read went to the one before
        self._desk.take(self._desk.config, self.plant)
        self.on_renewed()

    def _take(self, plant: Plant) -> None:
        """Put a plant in force; figures of closed shifts stay."""
        now_us = self._now_us()
        settings = self._settings
        self.plant = plant
        self.live = Live(Evaluation(plant, self._store), now_us, cpu_us=thread_cpu_us)
        self.closing = Closing(
            Evaluation(plant, self._store),
            grace_us=round(settings.shift_close_grace_secs * 1e6),
            settle_us=round(settings.revision_settle_secs * 1e6),
        )
        for key in plant.machines:
            self._load_closed(str(key), now_us)
        for line in plant.lines:
            self._load_closed("/".join(line), now_us)
        self.picture = self.live.look(now_us)
        self.board = self._make_board(self.picture)
        self._set_marks(now_us)
        self._locked_us = -_LOCK_EVERY_US
        self._lock(now_us)

    def _load_closed(self, scope: str, now_us: int) -> None:
        span = self._store.closed_span(scope)
        if span is not None:
            until_us = min(span[1], now_us)  # a clock that was ahead has closed what has not begun
            shifts = self._store.closed_between(scope, until_us - 7 * 86_400_000_000, until_us)
            ended = [shift for shift in shifts if shift.end_us <= until_us]
            if ended:
                self.last_closed[scope] = ended[-1].revision.figures

    def _note_closed(self, shift: ClosedShift, now_us: int) -> None:
        known = self.last_closed.get(shift.scope)
        is_older = known is not None and shift.revision.figures["start"] < known["start"]
        if known is None or not is_older or known["end"] > iso_utc(now_us):
            self.last_closed[shift.scope] = shift.revision.figures

    def _lock(self, now_us: int) -> None:
        """Keep apart what arrives for locked shifts; let it count when the plant no longer locks them."""
        if now_us - self._locked_us >= _LOCK_EVERY_US:
            self._locked_us = now_us
            if records := locks.lock(self._store, self.plant, now_us):
                _log.info("records count that arrived after the lock", records=records)

    def _look_for_others(self) -> None:
        """See to it that records are shown that another process, such as an import, has stored."""
        marks = {(dirty.machine, dirty.hour): dirty.mark for dirty in self._store.dirty()}
        for place, mark in marks.items():
            if self._marks_seen.get(place) != mark and (place[1] + 1) * US_PER_HOUR > self.live.from_us:
                self.live.read_again(MachineKey(*self._store.names.name("machine", place[0])))
        self._marks_seen = marks

    def _set_marks(self, now_us: int) -> None:
        """Say which records the live figures see, so that only others leave dirty marks."""
        for key, machine in self.plant.machines.items():
            number = self._store.names.find("machine", tuple(key))
            if number >= 0:
                window = shift_at(machine, now_us)
                self._store.live_from_us[number] = now_us if window is None else window.start_us

    def _make_board(self, picture: Picture) -> BoardView:
        by_machine: dict[MachineKey, list[AlertView]] = {}
        alerts = self._desk.open_alerts()
        for alert in alerts:
            key = MachineKey(alert.site, alert.area, alert.line, alert.machine)
            by_machine.setdefault(key, []).append(alert)
        views = {
            key: msgspec.structs.replace(view, alerts=by_machine[key]) if key in by_machine else view
            for key, view in picture.machines.items()
        }
        lines = [
            msgspec.structs.replace(picture.lines[line], machines=[views[machine.key] for machine in members])
            for line, members in self.plant.lines.items()
        ]
        sites = list(self.plant.sites.values())
        return BoardView(
            site=", ".join(site.name for site in sites),
            generated_epochtime=picture.at_us / 1e6,
            timezone=sites[0].timezone.key if sites else "UTC",
            shift=_common_shift(picture.machines),
            lines=lines,
            not_in_plant=[view for view in views.values() if not view.in_plant],
            alerts=alerts,
            health=self._health(picture),
        )


def _common_shift(machines: Mapping[MachineKey, MachineView]) -> Any:
    """Return the running shift that most machines work by."""
    shifts = [view.shift for view in machines.values() if view.shift is not None]
    return max(shifts, key=shifts.count, default=None)
