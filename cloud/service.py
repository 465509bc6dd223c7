"""The cloud side as one process: composes all its rooms, keeps them going, answers what is asked of them."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import structlog

from cloud import control, memory, questions
from cloud import plant as plants
from cloud.alerts.channels import Couriers
from cloud.alerts.config import AlertsConfig
from cloud.alerts.config import load as load_alerts
from cloud.alerts.desk import AlertDesk
from cloud.clock import Watch, clock_us, monotonic_us
from cloud.config import CloudConfig
from cloud.correcting import Corrections
from cloud.errors import CloudError, ControlError
from cloud.feeds import Feeds
from cloud.ingest.intake import Intake
from cloud.ingest.mqtt import Broker, Inbox
from cloud.live import Picture
from cloud.masterdata.config import load as load_sources
from cloud.masterdata.desk import MasterDataDesk
from cloud.oee.corrections import Correction
from cloud.oee.rollup import Level
from cloud.plant import Plant
from cloud.present import Present
from cloud.publishing import Publisher
from cloud.questions import Every
from cloud.report import after_lock
from cloud.results.config import ResultsConfig
from cloud.results.config import load as load_results
from cloud.results.outlets import Outlets
from cloud.settled import Settled
from cloud.store.port import Store
from cloud.views import (
    AfterLockView,
    AlertView,
    BoardView,
    ChannelView,
    GatewayView,
    HealthView,
    JobView,
    MuteView,
    RefusedRow,
    Revision,
    ShiftRow,
    TimelineView,
    Update,
)
from cloud.watching import Watched
from contract import topics
from contract.delivery import Status
from contract.machine_key import MachineKey

if TYPE_CHECKING:
    from cloud.jobs import Job, Jobs
    from cloud.results.health import Facts
    from cloud.results.reports import Print

_log = structlog.get_logger("cloud.service")

ServePages = Callable[["Cloud"], Coroutine[Any, Any, None]]


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
        tables = config.cloud
        self._plant_file = Watched(tables.plant, plants.load, seen=plant_stamp)
        self._alerts_file = None if tables.alerts is None else Watched(tables.alerts, load_alerts)
        self._results_file = None if tables.results is None else Watched(tables.results, load_results)
        self._masterdata_file = (
            None if tables.masterdata is None else Watched(tables.masterdata, load_sources)
        )
        self.config = config
        self._store = store
        self._now_us = now_us
        self._started_us = now_us()
        self._settled = Settled(store)
        self._corrections = Corrections(store, plant=lambda: self.plant, now_us=now_us)
        self._masterdata = MasterDataDesk(
            () if self._masterdata_file is None else self._masterdata_file.load(),
            store,
            self._corrections,
            base_plant=lambda: self._present.base_plant,
            plant=lambda: self.plant,
            now_us=now_us,
        )
        self._desk = AlertDesk(
            AlertsConfig() if self._alerts_file is None else self._alerts_file.load(),
            self._masterdata.with_shifts(plant),
            store,
            tables.data_dir,
            self._started_us,
        )
        self._couriers = Couriers(store, now_us=now_us, timezone_of=self._desk.timezone_of)
        self._desk.on_queued = self._couriers.wake
        self._outlets = Outlets(
            ResultsConfig() if self._results_file is None else self._results_file.load(),
            store,
            plant=lambda: self.plant,
            facts=self._facts,
            now_us=now_us,
        )
        self._broker: Broker | None = None
        self._inbox: Inbox | None = None
        self._intake: Intake | None = None
        self._jobs: Jobs | None = None
        self._watch = Watch()
        self._dead_letters = store.dead_letter_count()
        self._present = Present(
            config.cloud,
            plant,
            store,
            self._desk,
            with_shifts=self._masterdata.with_shifts,
            is_schedule_new=self._masterdata.is_schedule_new,
            watching_since_us=self._watching_since_us,
            health=self._health_of,
            now_us=now_us,
        )
        self._takes: dict[Watched[Any] | None, Callable[[Any], None]] = {
            self._plant_file: self._take_plant,
            self._alerts_file: lambda config: self._desk.take(config, self.plant),
            self._results_file: self._outlets.take,
            self._masterdata_file: self._masterdata.take,
        }
        self._files = [file for file in self._takes if file is not None]
        self._feeds = Feeds(self.board, now_us=now_us)
        self._present.on_renewed = self._feeds.put_whole

    @property
    def plant(self) -> Plant:
        """Return the plant in force."""
        return self._present.plant

    def use_printer(self, printer: "Print") -> None:
        """Say who makes the reports that results.toml asks for."""
        self._outlets.use_printer(printer)

    async def run(self, serve_pages: ServePages | None = None) -> None:
        """Serve until cancelled."""
        memory.bound()
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
                on_stored=self._present.add,
            )
            publisher = Publisher(self._broker, self._store)
            publisher.receipts()
            gc.collect()
            gc.freeze()  # plant, names and code stand for ever: no collection need walk through them again
            async with asyncio.TaskGroup() as group:
                group.create_task(self._broker.run(), name="cloud.mqtt")
                group.create_task(self._intake.run(), name="cloud.ingest")
                group.create_task(self._keep_live(loop, looking, publisher), name="cloud.live")
                self._jobs = self._make_jobs()
                group.create_task(self._jobs.run(), name="cloud.jobs")
                self._follow(group)
                group.create_task(self._watch_files(loop, looking, group), name="cloud.files")
                if serve_pages is not None:
                    group.create_task(serve_pages(self), name="cloud.pages")

    # What pages ask

    def board(self) -> BoardView:
        """Return everything that the board shows now."""
        return self._present.board

    def timeline(self, machine_key: MachineKey, from_us: int, to_us: int) -> TimelineView:
        """Return a machine's states in [from_us, to_us) [us since 1970], without holes, never beyond now."""
        return questions.timeline(self.plant, self._store, self._now_us(), machine_key, from_us, to_us)

    def shift_table(self, from_us: int, to_us: int, level: Level) -> list[ShiftRow]:
        """Return the shifts that touch [from_us, to_us), oldest first, of all places of a level."""
        return questions.shift_table(
            self.plant,
            self._store,
            self._settled,
            self._present.picture,
            self._now_us(),
            from_us=from_us,
            to_us=to_us,
            level=level,
        )

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
            self.plant,
            self._store,
            self._now_us(),
            from_us=from_us,
            to_us=to_us,
            every=every,
            level=level,
            place=place,
            product=product,
            settled=self._settled,
        )

    def revisions(self, scope: str, start_us: int) -> list[Revision]:
        """Return all revisions of a closed shift, oldest first; scope is `site/area/line[/machine]`."""
        return self._store.closed(scope, start_us)

    def after_lock(self, scope: str, start_us: int) -> AfterLockView | None:
        """Return what arrived of a closed shift when it was locked; None when nothing did."""
        shifts = self._store.closed_between(scope, start_us, start_us + 1)
        found = [after_lock(self.plant, self._store, scope, start_us, shift.end_us) for shift in shifts]
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
        return self._corrections.correct(correction)

    def corrections(self) -> list[Correction]:
        """Return all corrections that were ever made, oldest first, also those that were taken back."""
        return self._corrections.all()

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
        self._corrections.classify(machine_key, from_us, to_us, reason=reason, comment=comment, by=by)

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
                if (at := self._present.heard_us.get((site, gateway))) is None
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
        return self._health_of(self._present.picture)

    def _health_of(self, picture: Picture) -> HealthView:
        broker, intake = self._broker, self._intake
        taken = None if intake is None else intake.statistics()
        last_us = max((view.last_data_epochtime or 0.0 for view in picture.machines.values()), default=0.0)
        return HealthView(
            started_epochtime=self._started_us / 1e6,
            broker="connecting" if broker is None else broker.state,
            broker_since_epochtime=(self._started_us if broker is None else broker.state_since_us) / 1e6,
            broker_url=self.config.mqtt.url,
            broker_fault=None if broker is None else broker.fault,
            records_per_sec=0.0 if taken is None else taken.records_per_sec,
            records_stored=0 if taken is None else taken.stored,
            records_repeated=0 if taken is None else taken.repeated,
            records_refused=0 if taken is None else taken.refused,
            dead_letters=self._dead_letters + (0 if taken is None else taken.refused),
            last_data_epochtime=last_us or None,
            queue_messages=0 if self._inbox is None else self._inbox.waiting,
            live_overflows=picture.overflows,
            clock_warnings=[] if intake is None else intake.clock_warnings,
            plant_faults=self._plant_file.faults,
            store_fault=None if intake is None else intake.store_fault,
            alert_faults=_faults_of(self._alerts_file),
            results_faults=_faults_of(self._results_file),
            masterdata_faults=_faults_of(self._masterdata_file),
            channels=self._couriers.views(),
        )

    def subscribe(self) -> AsyncIterator[Update]:
        """Iterate over what changes, at most one Update per live interval.

        The first holds the whole board, and so does the next after a reader fell behind.
        """
        return self._feeds.subscribe()

    def jobs(self) -> list[JobView]:
        """Return the jobs with their last and next runs."""
        return (self._jobs or self._make_jobs()).views()

    def outlets(self) -> list[ChannelView]:
        """Return who is sent results, what waits for them and what was sent."""
        return self._outlets.views()

    def refused_rows(self) -> list[RefusedRow]:
        """Return the rows of master data that cannot be used as things are."""
        return self._masterdata.refused()

    # What the tasks do

    def _make_jobs(self) -> "Jobs":
        from cloud.jobs import Jobs

        return Jobs(
            self._all_jobs(),
            self._store,
            now_us=self._now_us,
            monotonic_us=monotonic_us,
        )

    def _all_jobs(self) -> "list[Job]":
        from cloud import upkeep

        return [
            *upkeep.jobs(self.config, self._store, self._now_us),
            *self._masterdata.jobs(),
            *self._outlets.jobs(),
        ]

    def _watching_since_us(self) -> int | None:
        """Return since when we hear what gateways say; None while we do not."""
        broker = self._broker
        if broker is None or broker.state != "connected":
            return None
        return self._watch.since_us(broker.state_since_us)

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
            site=", ".join(self.plant.sites),
            health=self.health(),
            gateways=self.gateways(),
            jobs=self.jobs(),
            outlets=[*self._couriers.views(), *self.outlets()],
            refused=self.refused_rows(),
            unknown=health.unknown_time(self._store, self.plant, now_us),
            disks=health.disks(folders),
            open_alerts=len(self._desk.open_alerts()),
        )

    async def _keep_live(
        self, loop: asyncio.AbstractEventLoop, looking: ThreadPoolExecutor, publisher: Publisher
    ) -> None:
        interval_secs = self.config.cloud.live_interval_secs
        present = self._present
        fault: str | None = None
        while True:
            began = loop.time()
            try:
                before = present.picture
                closed = await loop.run_in_executor(looking, present.look)
                publisher.figures(before, present.picture, closed, present.last_closed)
                self._feeds.tell(before, present.picture, present.board)
                if fault is not None:
                    _log.info("figures are live again")
                fault = None
            except Exception as error:  # noqa: BLE001  records are taken in whatever happens to figures
                if fault != str(error):
                    foreseen = isinstance(error, CloudError)
                    _log.error("live figures stand still", reason=str(error), exc_info=not foreseen)
                fault = str(error)
            await asyncio.sleep(max(0.01, interval_secs - (loop.time() - began)))

    async def _watch_files(
        self, loop: asyncio.AbstractEventLoop, looking: ThreadPoolExecutor, group: asyncio.TaskGroup
    ) -> None:
        """Put changed files in force, in the live thread; then, in the loop's, what goes on by them."""
        while True:
            await asyncio.sleep(self.config.cloud.plant_check_secs)
            for file in self._files:
                if await loop.run_in_executor(looking, self._take_changed, file):
                    try:
                        self._follow(group)
                    except CloudError as error:
                        self._take_later(file, error)

    def _take_changed(self, file: Watched[Any]) -> bool:
        """Put a file in force when it was changed and is valid; tell whether it was."""
        found = file.changed()
        if found is None:
            return False
        try:
            self._takes[file](found)
        except CloudError as error:
            self._take_later(file, error)
            return False
        _log.info(f"the changed {file.path.name} is in force")
        return True

    def _take_later(self, file: Watched[Any], error: CloudError) -> None:
        """Have the next look find a file changed that could not be put in force, such as on a full disk."""
        file.look_again(str(error))
        _log.error(f"the changed {file.path.name} cannot be put in force yet", reason=str(error))

    def _take_plant(self, plant: Plant) -> None:
        self._present.base_plant = plant
        self._present.renew()

    def _follow(self, group: asyncio.TaskGroup) -> None:
        """Let the carriers and jobs work that the files in force ask for, and no others."""
        self._couriers.take(self._desk.config.channel, group)
        self._outlets.carry(group)
        if self._jobs is not None:
            self._jobs.take(self._all_jobs())


def _faults_of(file: Watched[Any] | None) -> list[str]:
    return [] if file is None else file.faults


def _nothing_more() -> None:
    """Do nothing once a command is with the broker: the gateway's status answers it."""
