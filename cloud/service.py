"""The cloud side as one process: composes ingest, store, live figures, closing, alerts; reads the clock."""

import asyncio
import contextlib
import functools
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np
import structlog

from cloud import control, locks, questions
from cloud import plant as plants
from cloud.alerts.channels import Couriers
from cloud.alerts.config import AlertsConfig
from cloud.alerts.config import load as load_alerts
from cloud.alerts.desk import AlertDesk
from cloud.backup import STORE_FILE
from cloud.closing import Closing
from cloud.config import CloudConfig
from cloud.errors import ConfigError, ControlError, Fault, StoreError, UnknownMachineError
from cloud.evaluation import Evaluation
from cloud.ingest.intake import Intake
from cloud.ingest.mqtt import Broker, Inbox
from cloud.live import Live, Picture, segments_of
from cloud.masterdata.config import MasterDataTable
from cloud.masterdata.config import load as load_sources
from cloud.oee import corrections
from cloud.oee.calendar import shift_at
from cloud.oee.corrections import Correction
from cloud.oee.rollup import Level
from cloud.plant import Plant
from cloud.questions import Every
from cloud.report import after_lock
from cloud.results.config import ResultsConfig
from cloud.results.config import load as load_results
from cloud.results.outlets import Outlets
from cloud.store.port import Appended, ClosedShift, Store
from cloud.store.rows import US_PER_HOUR
from cloud.store.sqlite import SqliteStore
from cloud.views import (
    AfterLockView,
    AlertView,
    BoardView,
    ChannelView,
    GatewayView,
    HealthView,
    JobView,
    LineView,
    MachineView,
    MuteView,
    RefusedRow,
    Revision,
    ShiftRow,
    TimelineView,
    Update,
)
from contract import topics
from contract.delivery import Result, Status
from contract.machine_key import MachineKey

if TYPE_CHECKING:
    from cloud.jobs import Job, Jobs
    from cloud.masterdata.sync import Sync
    from cloud.results.health import Facts
    from cloud.results.reports import Print

_EVENTS_AT_ONCE: Final = 100
_FEED_LIMIT: Final = 8
_LOCK_EVERY_US: Final = 30_000_000

_log = structlog.get_logger("cloud.service")

ServePages = Callable[["Cloud"], Coroutine[Any, Any, None]]


def clock_us() -> int:
    """Return this machine's clock [us since 1970 UTC]."""
    return time.time_ns() // 1000


def thread_cpu_us() -> int:
    """Return how much processor time the calling thread has used [us]."""
    return time.thread_time_ns() // 1000


def open_store(config: CloudConfig) -> SqliteStore:
    """Open the store of a configuration; raise ConfigError when its folder cannot be used."""
    folder = config.cloud.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config.history.enabled:
            return SqliteStore(folder / STORE_FILE)
        from cloud.store.parquet import History
        from cloud.store.tiers import TieredStore

        return TieredStore(folder / STORE_FILE, History(config.history_folder))
    except (OSError, StoreError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            [Fault("cloud.toml", "cloud.data_dir", f"{folder} cannot be written: {reason}")]
        ) from error


def with_schedule(plant: Plant, store: Store, tables: Iterable[MasterDataTable]) -> Plant:
    """Return a plant with the shifts that planning systems said, as the store remembers them."""
    sources = [table.name for table in tables if table.kind == "shift"]
    if not sources:
        return plant
    from cloud.masterdata.schedule import entries_of, scheduled

    return scheduled(plant, (entry for source in sources for entry in entries_of(store, source).values()))


class Cloud:
    """Everything that pages and commands may ask; `run` keeps it going.

    The questions are answered from memory or with a few indexed reads, in the caller's thread.
    """

    def __init__(
        self,
        config: CloudConfig,
        plant: Plant,
        store: Store,
        *,
        now_us: Callable[[], int] = clock_us,
        plant_stamp: object = None,
    ) -> None:
        """Make the service of what was loaded.

        plant_stamp: `stamp` of the plant's files from before they were loaded; None: as they are now
        """
        self._plant_stamp = stamp(config.cloud.plant) if plant_stamp is None else plant_stamp
        self.config = config
        self._store = store
        self._now_us = now_us
        self._started_us = now_us()
        self._correcting = threading.Lock()
        self._locked_us = 0
        """When the store was last told what is locked."""
        self._masterdata = () if config.cloud.masterdata is None else load_sources(config.cloud.masterdata)
        self._base_plant = plant
        """As plant.toml says it, without what planning systems add."""
        self._schedule_changed = threading.Event()
        plant = with_schedule(plant, store, self._masterdata)
        alerts_file = config.cloud.alerts
        self._alerts_stamp = None if alerts_file is None else stamp(alerts_file)
        alerting = AlertsConfig() if alerts_file is None else load_alerts(alerts_file)
        self._alert_faults: list[str] = []
        self._desk = AlertDesk(alerting, plant, store, config.cloud.data_dir, self._started_us)
        self._couriers = Couriers(store, now_us=now_us, timezone_of=self._desk.timezone_of)
        self._desk.on_queued = self._couriers.wake
        self._reading_corrections = threading.Lock()
        self._outlets = Outlets(
            ResultsConfig() if config.cloud.results is None else load_results(config.cloud.results),
            store,
            plant=lambda: self._plant,
            facts=self._facts,
            now_us=now_us,
        )
        self._syncs: list[Sync] = []
        self._known_corrections: list[Correction] = []
        self._plant_faults: list[str] = []
        self._feeds: set[_Feed] = set()
        self._broker: Broker | None = None
        self._inbox: Inbox | None = None
        self._intake: Intake | None = None
        self._jobs: Jobs | None = None
        self._dead_letters = store.dead_letter_count()
        self._marks_seen: dict[tuple[int, int], int] = {}
        self._heard_us: dict[tuple[str, str], int] = {}
        """By gateway: the newest moment that a record of it is of, since the start."""
        self._closed: dict[str, dict[str, Any]] = {}
        """By scope: the figures of the last closed shift."""
        self._take_plant(plant)

    @property
    def plant(self) -> Plant:
        """Return the plant in force."""
        return self._plant

    def use_printer(self, printer: "Print") -> None:
        """Say who makes the reports that results.toml asks for."""
        self._outlets.use_printer(printer)

    async def run(self, serve_pages: ServePages | None = None) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        settings = self.config
        with (
            ThreadPoolExecutor(1, thread_name_prefix="cloud.store") as storing,
            ThreadPoolExecutor(1, thread_name_prefix="cloud.live") as looking,
        ):
            self._inbox = Inbox(settings.ingest.queue_messages)
            self._broker = Broker(settings.mqtt, self._inbox)
            self._intake = Intake(
                self._store,
                self._inbox,
                self._broker,
                settings.ingest,
                max_future_secs=settings.cloud.max_future_secs,
                clock_us=self._now_us,
                executor=storing,
                on_stored=self._on_stored,
            )
            self._publish_receipts()
            self._outlets.forget()
            gc.collect()
            gc.freeze()  # plant, names and code stand for ever: no collection need walk through them again
            async with asyncio.TaskGroup() as group:
                group.create_task(self._broker.run(), name="cloud.mqtt")
                group.create_task(self._intake.run(), name="cloud.ingest")
                group.create_task(self._keep_live(loop, looking), name="cloud.live")
                group.create_task(self._make_jobs().run(), name="cloud.jobs")
                group.create_task(self._watch_plant(loop, looking), name="cloud.plant")
                self._couriers.take(self._desk.config.channel, group)
                group.create_task(self._watch_alerts(loop, looking, group), name="cloud.alerts")
                for carrier in self._outlets.carriers:
                    group.create_task(carrier.run(), name=f"cloud.carrier.{carrier.name}")
                if serve_pages is not None:
                    group.create_task(serve_pages(self), name="cloud.pages")

    # What pages ask

    def board(self) -> BoardView:
        """Return everything that the board shows now."""
        return self._board

    def timeline(self, machine_key: MachineKey, from_us: int, to_us: int) -> TimelineView:
        """Return a machine's states in [from_us, to_us) [us since 1970], without holes, never beyond now."""
        if machine_key not in self._plant.machines:
            raise UnknownMachineError(f"{machine_key} is not in the plant")
        now_us = self._now_us()
        to_us = max(from_us, min(to_us, now_us))
        segments = []
        if to_us > from_us:
            evaluation = Evaluation(self._plant, self._store)
            whole, frame = evaluation.timeline([machine_key], from_us, to_us, now_us)
            index = evaluation.names.machine(machine_key)
            segments = segments_of(whole.cells, index, frame, (from_us, to_us), evaluation)
        return TimelineView(
            **machine_key._asdict(),
            from_epochtime=from_us / 1e6,
            to_epochtime=to_us / 1e6,
            segments=segments,
        )

    def shift_table(self, from_us: int, to_us: int, level: Level) -> list[ShiftRow]:
        """Return the shifts that touch [from_us, to_us), oldest first, of all places of a level.

        Closed shifts of machines and lines are as their newest revision says.
        """
        if level in ("machine", "line"):
            return self._stored_table(from_us, to_us, level)
        now_us = self._now_us()
        evaluation = Evaluation(self._plant, self._store)
        from cloud.oee.rollup import figures

        whole, _ = evaluation.timeline(list(self._plant.machines), from_us, to_us, now_us)
        rows = figures(
            whole,
            self._plant,
            evaluation.names,
            level=level,
            wanted=lambda window: window.start_us < to_us and window.end_us > from_us,
        )
        return sorted((row.to_dict() for row in rows), key=lambda row: str(row["start"]))

    def figures(
        self,
        from_us: int,
        to_us: int,
        *,
        every: Every,
        level: Level,
        place: tuple[str, ...] = (),
        product: str | None = None,
    ) -> list[ShiftRow]:
        """Return the figures of each window of [from_us, to_us), oldest first; see `cloud.questions`."""
        return questions.figures(
            self._plant,
            self._store,
            self._now_us(),
            from_us=from_us,
            to_us=to_us,
            every=every,
            level=level,
            place=place,
            product=product,
        )

    def revisions(self, scope: str, start_us: int) -> list[Revision]:
        """Return all revisions of a closed shift, oldest first; scope is `site/area/line[/machine]`."""
        return self._store.closed(scope, start_us)

    def after_lock(self, scope: str, start_us: int) -> AfterLockView | None:
        """Return what arrived of a closed shift when it was locked; None when nothing did."""
        shifts = self._store.closed_between(scope, start_us, start_us + 1)
        found = [after_lock(self._plant, self._store, scope, start_us, shift.end_us) for shift in shifts]
        if not found or found[0] is None:
            return None
        records, first_us, last_us = found[0]
        return AfterLockView(records=records, first_epochtime=first_us / 1e6, last_epochtime=last_us / 1e6)

    def alerts(self, open_only: bool = True) -> list[AlertView]:  # noqa: FBT001, FBT002  as the port has it
        """Return alerts, newest first."""
        return self._desk.open_alerts() if open_only else self._desk.alerts()

    def acknowledge(self, alert_id: str, by: str, note: str = "") -> AlertView:
        """Note who has seen an open alert; raise CloudError when it is not open."""
        return self._desk.acknowledge(alert_id, by, note, self._now_us())

    def mutes(self) -> list[MuteView]:
        """Return the mutes that are in force, oldest first."""
        return self._desk.mutes(self._now_us())

    def mute(self, place: str, until_us: int, *, who: str, why: str, rules: Sequence[str] = ()) -> MuteView:
        """Let alerts of a place and of all below it wake nobody until an instant; raise CloudError otherwise.

        rules: only of these; empty: of all
        """
        now_us = self._now_us()
        wanted = MuteView(
            id=0,
            place=place,
            rules=list(rules),
            from_epochtime=now_us / 1e6,
            until_epochtime=until_us / 1e6,
            who=who,
            why=why,
        )
        return self._desk.mute(wanted, now_us)

    def unmute(self, number: int, by: str) -> MuteView:
        """End a mute; raise CloudError when none of that number is in force."""
        return self._desk.unmute(number, by, self._now_us())

    def correct(self, correction: Correction) -> int:
        """Keep a correction of the past and return its number; raise CorrectionError when it may not be made.

        `who` is told in it; `when_us` and `number` are set here. What it changes is shown on the next read,
        and closed shifts that it touches get a new revision.
        """
        with self._correcting:
            now_us = self._now_us()
            correction = msgspec.structs.replace(correction, when_us=now_us, number=0)
            others = self.corrections()
            corrections.check(correction, others, self._plant, now_us=now_us)
            machine, from_us, to_us = corrections.touched(correction, others)
            # Rates and orders may be open-ended.
            from_us = max(from_us, self._first_record_us(machine, now_us))
            hours = range(from_us // US_PER_HOUR, (min(to_us, now_us) - 1) // US_PER_HOUR + 1)
            why = f"{correction.kind.replace('_', ' ')} by {correction.who}"
            number = self._store.add_correction(corrections.encode(correction), machine, hours, why)
        self._live.cut_anew()
        _log.info("corrected", machine=str(machine), what=correction.kind, who=correction.who, number=number)
        return number

    def _first_record_us(self, machine: MachineKey, now_us: int) -> int:
        number = self._store.names.find("machine", tuple(machine))
        extent = None if number < 0 else self._store.extent(number)
        return now_us if extent is None else extent[0]

    def corrections(self) -> list[Correction]:
        """Return all corrections that were ever made, oldest first, also those that were taken back."""
        with self._reading_corrections:
            known = self._known_corrections
            last = known[-1].number if known else 0
            known += [corrections.decode(text, number) for number, text in self._store.corrections(last)]
            return list(known)

    def classify(
        self,
        machine_key: MachineKey,
        from_us: int,
        to_us: int,
        *,
        reason: str | None,
        comment: str | None,
        by: str,
    ) -> None:
        """Say why a machine stood in [from_us, to_us); raise CorrectionError when that may not be said.

        reason: its key in plant.toml; None takes back what was said of that time
        """
        before = [
            item
            for item in corrections.in_force(self.corrections())
            if item.machine_key == machine_key
            and item.kind in ("classify", "move")
            and item.from_us < to_us
            and item.to_us > from_us
        ]
        made = Correction(
            machine=str(machine_key),
            kind="move" if before else "classify",
            from_us=from_us,
            to_us=to_us,
            who=by,
            when_us=0,
            why=comment or "",
            reason=reason,
        )
        if reason is not None:
            self.correct(made)
            return
        for item in before:
            self.correct(msgspec.structs.replace(made, kind="void", voids=item.number))

    def gateways(self) -> list[GatewayView]:
        """Return the gateways as they last reported."""
        return [
            GatewayView(
                gateway=gateway,
                site=site,
                status=status,
                received_epochtime=None if received_us is None else received_us / 1e6,
                stored_through=receipt.stored_through,
                last_record_epochtime=None
                if (at := self._heard_us.get((site, gateway))) is None
                else at / 1e6,
                connections=[] if status is None else status.connections,
            )
            for (site, gateway), status, received_us, receipt in self._store.gateways()
        ]

    def ask_gateway(
        self, site: str, gateway: str, connection: str, action: Literal["start", "stop"], *, by: str
    ) -> str:
        """Ask a gateway to start or stop the reading of one PLC; raise ControlError when that is no use.

        Returns the command's id, under which the gateway's status tells what became of it.
        """
        statuses = {name: status for name, status, _, _ in self._store.gateways()}
        refusal = control.refusal(statuses.get((site, gateway)), gateway, connection)
        broker = self._broker
        if refusal is None and (broker is None or broker.state != "connected"):
            refusal = "there is no broker to ask it by"
        if refusal is not None:
            raise ControlError(f"{connection} cannot be asked to {action}: {refusal}")
        assert broker is not None
        command = control.command(site, gateway, connection, action, by=by, now_us=self._now_us())
        topic = topics.gateway_topic(site, gateway, "command")
        broker.publish_event(command.id, topic, msgspec.json.encode(command), _nothing_more)
        _log.info("asked a gateway", gateway=gateway, connection=connection, action=action, by=by)
        return command.id

    def statuses(self) -> list[Status]:
        """Return what each gateway last said of itself."""
        return [known.status for known in self._store.gateways() if known.status is not None]

    def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest refused messages, newest first, as they are shown."""
        return [
            {
                "received_epochtime": letter.received_us / 1e6,
                "topic": letter.topic,
                "reason": letter.reason,
                "payload": letter.payload.decode("utf-8", "replace"),
            }
            for letter in self._store.dead_letters(limit)
        ]

    def health(self) -> HealthView:
        """Return how the service itself does."""
        broker, intake = self._broker, self._intake
        taken = None if intake is None else intake.statistics()
        last_us = max(
            (view.last_data_epochtime or 0.0 for view in self._picture.machines.values()), default=0.0
        )
        return HealthView(
            started_epochtime=self._started_us / 1e6,
            broker="connecting" if broker is None else broker.state,
            broker_since_epochtime=(self._started_us if broker is None else broker.state_since_us) / 1e6,
            broker_url=self.config.mqtt.url,
            records_per_sec=0.0 if taken is None else taken.records_per_sec,
            records_stored=0 if taken is None else taken.stored,
            records_repeated=0 if taken is None else taken.repeated,
            records_refused=0 if taken is None else taken.refused,
            dead_letters=self._dead_letters + (0 if taken is None else taken.refused),
            last_data_epochtime=last_us or None,
            queue_messages=0 if self._inbox is None else self._inbox.waiting,
            clock_warnings=[] if intake is None else intake.clock_warnings,
            plant_faults=self._plant_faults,
            store_fault=None if intake is None else intake.store_fault,
            alert_faults=self._alert_faults,
            channels=self._couriers.views(),
        )

    async def subscribe(self) -> AsyncIterator[Update]:
        """Iterate over what changes, at most one Update per live interval.

        The first holds the whole board, and so does the next after a reader fell behind.
        """
        feed = _Feed(_FEED_LIMIT)
        self._feeds.add(feed)
        try:
            yield Update(generated_epochtime=self._now_us() / 1e6, whole=self.board())
            while True:
                update = await feed.get()
                yield (
                    Update(generated_epochtime=self._now_us() / 1e6, whole=self.board())
                    if (update is None)
                    else update
                )
        finally:
            self._feeds.discard(feed)

    def jobs(self) -> list[JobView]:
        """Return the jobs with their last and next runs."""
        return (self._jobs or self._make_jobs()).views()

    def outlets(self) -> list[ChannelView]:
        """Return who is sent results, what waits for them and what was sent."""
        return self._outlets.views()

    def refused_rows(self) -> list[RefusedRow]:
        """Return the rows of master data that cannot be used as things are."""
        return [row for sync in self._syncs for row in sync.refused()]

    # What the tasks do

    def _make_jobs(self) -> "Jobs":
        from cloud.jobs import Jobs
        from cloud.upkeep import jobs

        self._jobs = Jobs(
            [
                *jobs(self.config, self._store, self._now_us),
                *self._masterdata_jobs(),
                *self._outlets.jobs(),
            ],
            self._store,
            now_us=self._now_us,
            monotonic_us=lambda: time.monotonic_ns() // 1000,
        )
        return self._jobs

    def _masterdata_jobs(self) -> "list[Job]":
        from cloud.jobs import Job

        self._syncs = [self._sync_of(table) for table in self._masterdata]
        return [
            Job(f"masterdata-{sync.table.name}", float(sync.table.interval_secs), sync.run)
            for sync in self._syncs
        ]

    def _sync_of(self, table: MasterDataTable) -> "Sync":
        from cloud.masterdata.schedule import Schedule
        from cloud.masterdata.sync import Sync

        if table.kind == "shift":
            return Schedule(
                table,
                self._store,
                base=lambda: self._base_plant,
                plant=lambda: self._plant,
                changed=self._schedule_changed.set,
                now_us=self._now_us,
            )
        return Sync(
            table,
            self._store,
            plant=lambda: self._plant,
            corrections=self.corrections,
            correct=self.correct,
            now_us=self._now_us,
        )

    def _facts(self) -> "Facts":
        """Return what a letter on health says."""
        from cloud.results import health

        now_us = self._now_us()
        folders = {
            "the store": self.config.cloud.data_dir,
            "the history": self.config.history_folder,
            **({} if (folder := self.config.backup.folder) is None else {"backups": folder}),
        }
        return health.Facts(
            site=", ".join(self._plant.sites),
            health=self.health(),
            gateways=self.gateways(),
            jobs=self.jobs(),
            outlets=[*self._couriers.views(), *self.outlets()],
            refused=self.refused_rows(),
            unknown=health.unknown_time(self._store, self._plant, now_us),
            disks=health.disks(folders),
            open_alerts=len(self._desk.open_alerts()),
        )

    def _on_stored(self, appended: Appended) -> None:
        fresh = appended.fresh
        self._live.add(fresh)
        for gateway in np.unique(fresh["gateway"]).tolist():
            newest_us = int(fresh["time_us"][fresh["gateway"] == gateway].max())
            name = self._store.names.name("gateway", gateway)
            self._heard_us[name] = max(newest_us, self._heard_us.get(name, 0))

    async def _keep_live(self, loop: asyncio.AbstractEventLoop, looking: ThreadPoolExecutor) -> None:
        interval_secs = self.config.cloud.live_interval_secs
        fault: str | None = None
        while True:
            began = loop.time()
            try:
                before = self._picture
                closed = await loop.run_in_executor(looking, self._look)
                self._publish(before, closed)
                self._tell(before)
                if fault is not None:
                    _log.info("figures are live again")
                fault = None
            except Exception as error:  # noqa: BLE001  records are taken in whatever happens to figures
                if fault != str(error):
                    _log.exception("live figures stand still")
                fault = str(error)
            await asyncio.sleep(max(0.01, interval_secs - (loop.time() - began)))

    def _look(self) -> list[ClosedShift]:
        """Renew the picture, judge alerts and close what is due; in the live thread."""
        now_us = self._now_us()
        if self._schedule_changed.is_set():
            self._schedule_changed.clear()
            self._renew_plant()
            _log.info("shifts are as the planning system says")
        self._look_for_others()
        self._lock(now_us)
        self._picture = self._live.look(now_us)
        self._set_marks(now_us)
        self._judge_alerts(now_us)
        closed: list[ClosedShift] = []
        deadline = time.monotonic() + 0.5 * self.config.cloud.live_interval_secs
        while True:
            step = self._closing.step(now_us)
            closed += step.shifts
            if step.is_done or time.monotonic() > deadline:
                break
        for shift in closed:
            self._note_closed(shift)
        self._board = self._make_board(self._picture)
        return closed

    def _lock(self, now_us: int) -> None:
        """Keep apart what arrives for locked shifts; let it count when the plant no longer locks them."""
        if now_us - self._locked_us >= _LOCK_EVERY_US:
            self._locked_us = now_us
            if records := locks.lock(self._store, self._plant, now_us):
                _log.info("records count that arrived after the lock", records=records)

    def _look_for_others(self) -> None:
        """See to it that records are shown that another process, such as an import, has stored."""
        marks = {(dirty.machine, dirty.hour): dirty.mark for dirty in self._store.dirty()}
        for place, mark in marks.items():
            if self._marks_seen.get(place) != mark and (place[1] + 1) * US_PER_HOUR > self._live.from_us:
                self._live.read_again(MachineKey(*self._store.names.name("machine", place[0])))
        self._marks_seen = marks

    def _judge_alerts(self, now_us: int) -> None:
        broker = self._broker
        is_watching = broker is not None and broker.state == "connected"
        since_us = broker.state_since_us if broker is not None and is_watching else None
        self._desk.judge(self._picture, self._live, since_us, now_us)

    async def _watch_alerts(
        self, loop: asyncio.AbstractEventLoop, looking: ThreadPoolExecutor, group: asyncio.TaskGroup
    ) -> None:
        """Take a changed alerts.toml when it is valid; else say what is wrong, and keep the one before."""
        path = self.config.cloud.alerts
        if path is None:
            return
        while True:
            await asyncio.sleep(self.config.cloud.plant_check_secs)
            found = stamp(path)
            if found == self._alerts_stamp:
                continue
            self._alerts_stamp = found
            try:
                config = await loop.run_in_executor(looking, load_alerts, path)
            except ConfigError as error:
                self._alert_faults = [str(fault) for fault in error.faults]
                _log.error(
                    "the changed alerts.toml is refused; the one before stays", faults=self._alert_faults
                )
                continue
            self._alert_faults = []
            await loop.run_in_executor(looking, self._desk.take, config, self._plant)
            self._couriers.take(config.channel, group)
            _log.info(
                "the changed alerts.toml is in force", rules=len(config.rule), channels=len(config.channel)
            )

    def _set_marks(self, now_us: int) -> None:
        """Say which records the live figures see, so that only others leave dirty marks."""
        for key, machine in self._plant.machines.items():
            number = self._store.names.find("machine", tuple(key))
            if number >= 0:
                window = shift_at(machine, now_us)
                self._store.live_from_us[number] = now_us if window is None else window.start_us

    def _note_closed(self, shift: ClosedShift) -> None:
        known = self._closed.get(shift.scope)
        if known is None or shift.revision.figures["start"] >= known["start"]:
            self._closed[shift.scope] = shift.revision.figures

    def _publish(self, before: Picture, closed: Iterable[ClosedShift]) -> None:
        broker = self._broker
        if broker is None:
            return
        revised = {shift.scope for shift in closed}
        for key, view in self._picture.machines.items():
            if view.in_plant and (before.machines.get(key) != view or str(key) in revised):
                result = Result(
                    epochtime=self._picture.at_us / 1e6,
                    current=view.figures,
                    closed=self._closed.get(str(key)),
                )
                broker.publish_retained(topics.machine_topic(key, "oee"), msgspec.json.encode(result))
        for event in self._store.events(_EVENTS_AT_ONCE):
            broker.publish_event(
                str(event.id), event.topic, event.payload, functools.partial(self._forget, event.id)
            )

    def _forget(self, event: int) -> None:
        with contextlib.suppress(StoreError):  # then it is sent once more
            self._store.event_sent(event)

    def _publish_receipts(self) -> None:
        assert self._broker is not None
        for (site, gateway), _, _, receipt in self._store.gateways():
            self._broker.publish_retained(
                topics.gateway_topic(site, gateway, "receipt"), msgspec.json.encode(receipt)
            )

    def _tell(self, before: Picture) -> None:
        """Send what changed to everybody who follows."""
        if not self._feeds:
            return
        board = self._board
        views = {
            MachineKey(view.site, view.area, view.line, view.machine): view
            for line in board.lines
            for view in line.machines
        }
        update = Update(
            generated_epochtime=board.generated_epochtime,
            machines=[view for key, view in views.items() if before.machines.get(key) != view]
            + [view for view in board.not_in_plant if before.machines.get(_key_of(view)) != view],
            lines=[view for key, view in self._picture.lines.items() if before.lines.get(key) != view],
            alerts=board.alerts,
            shift=board.shift,
            health=board.health,
        )
        for feed in list(self._feeds):
            feed.put(update)

    async def _watch_plant(self, loop: asyncio.AbstractEventLoop, looking: ThreadPoolExecutor) -> None:
        path = self.config.cloud.plant
        while True:
            await asyncio.sleep(self.config.cloud.plant_check_secs)
            found = stamp(path)
            if found != self._plant_stamp:
                self._plant_stamp = found
                await loop.run_in_executor(looking, self._reload_plant, path)

    def _reload_plant(self, path: Path) -> None:
        try:
            plant = plants.load(path)
        except ConfigError as error:
            self._plant_faults = [str(fault) for fault in error.faults]
            _log.error("the changed plant is refused; the one before stays", faults=self._plant_faults)
            return
        self._plant_faults = []
        self._base_plant = plant
        self._renew_plant()
        _log.info("the changed plant is in force", machines=len(plant.machines))

    def _renew_plant(self) -> None:
        """Put plant.toml in force with the shifts that planning systems say, and tell everybody."""
        self._take_plant(with_schedule(self._base_plant, self._store, self._masterdata))
        self._live.cut_anew()  # what was stored while it read went to the one before
        self._desk.take(self._desk.config, self._plant)
        for feed in list(self._feeds):
            feed.put_whole()

    def _take_plant(self, plant: Plant) -> None:
        """Put a plant in force; figures of closed shifts stay."""
        now_us = self._now_us()
        settings = self.config.cloud
        self._plant = plant
        self._live = Live(Evaluation(plant, self._store), now_us, cpu_us=thread_cpu_us)
        self._closing = Closing(
            Evaluation(plant, self._store),
            grace_us=round(settings.shift_close_grace_secs * 1e6),
            settle_us=round(settings.revision_settle_secs * 1e6),
        )
        for key in plant.machines:
            self._load_closed(str(key))
        for line in plant.lines:
            self._load_closed("/".join(line))
        self._picture = self._live.look(now_us)
        self._board = self._make_board(self._picture)
        self._set_marks(now_us)
        self._locked_us = -_LOCK_EVERY_US
        self._lock(now_us)

    def _load_closed(self, scope: str) -> None:
        span = self._store.closed_span(scope)
        if span is not None:
            (last, *_) = reversed(self._store.closed_between(scope, span[1] - 7 * 86_400_000_000, span[1]))
            self._closed[scope] = last.revision.figures

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
            for line, members in self._plant.lines.items()
        ]
        sites = list(self._plant.sites.values())
        return BoardView(
            site=", ".join(site.name for site in sites),
            generated_epochtime=picture.at_us / 1e6,
            timezone=sites[0].timezone.key if sites else "UTC",
            shift=_common_shift(picture.machines),
            lines=lines,
            not_in_plant=[view for view in views.values() if not view.in_plant],
            alerts=alerts,
            health=self.health(),
        )

    def _stored_table(self, from_us: int, to_us: int, level: Level) -> list[ShiftRow]:
        views: Mapping[str, MachineView | LineView]
        if level == "machine":
            scopes = list(map(str, self._plant.machines))
            views = {str(key): view for key, view in self._picture.machines.items()}
        else:
            scopes = list(map("/".join, self._plant.lines))
            views = {"/".join(line): view for line, view in self._picture.lines.items()}
        rows: list[ShiftRow] = []
        for scope in scopes:
            closed = self._store.closed_between(scope, from_us - 86_400_000_000, to_us)
            rows += [shift.revision.figures for shift in closed if shift.end_us > from_us]
            figures = views[scope].figures if scope in views else None
            if figures is not None and _starts_before(figures, to_us):
                rows.append(figures)
        return sorted(rows, key=lambda row: str(row["start"]))


class _Feed:
    """Updates for one reader: bounded; a reader that falls behind gets the whole instead."""

    def __init__(self, limit: int) -> None:
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue(limit)
        self._loop = asyncio.get_running_loop()

    async def get(self) -> Update | None:
        """Return the next update; None stands for the whole."""
        return await self._updates.get()

    def put(self, update: Update) -> None:
        """Add an update; in the loop's thread."""
        if self._updates.full():
            while not self._updates.empty():
                self._updates.get_nowait()
            self._updates.put_nowait(None)
        else:
            self._updates.put_nowait(update)

    def put_whole(self) -> None:
        """Ask for the whole, from any thread."""
        self._loop.call_soon_threadsafe(self._replace)

    def _replace(self) -> None:
        while not self._updates.empty():
            self._updates.get_nowait()
        self._updates.put_nowait(None)


def _nothing_more() -> None:
    """Do nothing once a command is with the broker: the gateway's status answers it."""


def _key_of(view: MachineView) -> MachineKey:
    return MachineKey(view.site, view.area, view.line, view.machine)


def _common_shift(machines: Mapping[MachineKey, MachineView]) -> Any:
    """Return the running shift that most machines work by."""
    shifts = [view.shift for view in machines.values() if view.shift is not None]
    return max(shifts, key=shifts.count, default=None)


def _starts_before(figures: Mapping[str, Any], to_us: int) -> bool:
    return datetime.fromisoformat(figures["start"]) < datetime.fromtimestamp(to_us / 1e6, UTC)


def stamp(path: Path) -> object:
    """Return what differs when a file, or any file of a folder, was changed."""
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append((file, status.st_mtime_ns, status.st_size, status.st_ino))
    return found
