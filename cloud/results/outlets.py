"""Everything that results.toml asks for, put together: the jobs that make letters, and who carries what."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import msgspec
import structlog

from cloud.carrier import Carrier, Running
from cloud.errors import ResultsError
from cloud.plant import Plant
from cloud.results.config import Format, HealthTable, ResultsConfig
from cloud.results.health import Digest, Facts
from cloud.results.letters import Post
from cloud.results.periods import Period
from cloud.results.reports import Print, Printed, Reports
from cloud.results.webhook import Webhook
from cloud.store.port import Store
from cloud.views import ChannelView

if TYPE_CHECKING:
    from cloud.jobs import Job
    from cloud.results.export import Export

_LOOK_SECS: Final = 10.0
_KINDS: Final = {Reports: "report", Digest: "health"}

_log = structlog.get_logger("cloud.results.outlets")


class Outlets:
    """Where results go."""

    def __init__(
        self,
        config: ResultsConfig,
        store: Store,
        *,
        plant: Callable[[], Plant],
        facts: Callable[[], Facts],
        now_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._plant = plant
        self._facts = facts
        self._now_us = now_us
        self._printer: Print | None = None
        self._running = Running()
        self.carriers: list[Carrier[Any]] = []
        self._work: list[Reports | Digest] = []
        self.take(config)

    def take(self, config: ResultsConfig) -> None:
        """Put a configuration in force; what it says as before goes on as it was."""
        made: list[Carrier[Any]] = [
            Post(channel, table, to, self._store, now_us=self._now_us)
            for table in config.mails()
            for channel, to in table.channels().items()
        ]
        made += [Webhook(table, self._store, now_us=self._now_us) for table in config.webhook]
        made += _exports(config, self._store)
        known = {carrier.name: carrier for carrier in self.carriers}
        self.carriers = [
            before
            if (before := known.get(carrier.name)) is not None and before.table == carrier.table
            else carrier
            for carrier in made
        ]
        self._work = [
            *(
                Reports(table, self._store, plant=self._plant, printer=self._print, now_us=self._now_us)
                for table in config.report
            ),
            *(
                Digest(table, self._store, facts=self._facts, zone=self._zone_of(table), now_us=self._now_us)
                for table in config.health
            ),
        ]

    def carry(self, group: asyncio.TaskGroup) -> None:
        """Let the carriers of the configuration in force work, and no others. In the loop's thread."""
        channels = [carrier.name for carrier in self.carriers if isinstance(carrier, Post)]
        if forgotten := self._store.forget_deliveries(channels, "mail"):
            _log.warning("mails to whom nothing is mailed any more are dropped", mails=forgotten)
        self._running.serve(self.carriers, group)

    def use_printer(self, printer: Print) -> None:
        """Say who makes reports."""
        self._printer = printer

    def jobs(self) -> "list[Job]":
        """Return the jobs that make letters, in a lane of their own: to print a report takes a while."""
        from cloud.jobs import Job

        return [
            Job(f"{_KINDS[type(work)]}-{work.table.name}", _LOOK_SECS, work.run, lane="letters")
            for work in self._work
        ]

    def views(self) -> list[ChannelView]:
        """Return what waits for whom now, and what was sent since each is known."""
        return [msgspec.structs.replace(each.view, waiting=each.backlog()) for each in self.carriers]

    def _print(self, period: Period, formats: Sequence[Format], *, edition: int) -> Printed:
        if self._printer is None:
            raise ResultsError("reports are made by the dashboards, which this process does not have")
        return self._printer(period, formats, edition=edition)

    def _zone_of(self, table: HealthTable) -> Callable[[], ZoneInfo]:
        if table.timezone is not None:
            zone = ZoneInfo(table.timezone)
            return lambda: zone
        return lambda: next(iter(self._plant().sites.values())).timezone


def _exports(config: ResultsConfig, store: Store) -> "list[Export]":
    """Return the exports; their library is loaded when there are any."""
    if not config.export:
        return []
    from cloud.results.export import Export

    return [Export(table, store) for table in config.export]
