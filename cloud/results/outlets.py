"""Everything that results.toml asks for, put together: the jobs that make letters, and who carries what."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import structlog

from cloud.carrier import Carrier
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
    from cloud.results.follower import Follower

_LOOK_SECS: Final = 10.0

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
        self._printer: Print | None = None
        self.carriers: list[Carrier[Any]] = [
            Post(channel, table, to, store, now_us=now_us)
            for table in config.mails()
            for channel, to in table.channels().items()
        ]
        self._followers: list[Follower[Any]] = [
            *(Webhook(table, store, now_us=now_us) for table in config.webhook),
            *_exports(config, store),
        ]
        self.carriers += self._followers
        self._channels = [channel for table in config.mails() for channel in table.channels()]
        self._reports = [
            Reports(table, store, plant=plant, printer=self._print, now_us=now_us) for table in config.report
        ]
        self._digests = [
            Digest(table, store, facts=facts, zone=self._zone_of(table), now_us=now_us)
            for table in config.health
        ]

    def use_printer(self, printer: Print) -> None:
        """Say who makes reports."""
        self._printer = printer

    def forget(self) -> None:
        """Drop letters to whom results.toml does not name any more."""
        if forgotten := self._store.forget_deliveries(self._channels, "mail"):
            _log.warning("mails to whom nothing is mailed any more are dropped", mails=forgotten)

    def jobs(self) -> "list[Job]":
        """Return the jobs that make letters."""
        from cloud.jobs import Job

        reports = [Job(f"report-{item.table.name}", _LOOK_SECS, item.run) for item in self._reports]
        return reports + [Job(f"health-{item.table.name}", _LOOK_SECS, item.run) for item in self._digests]

    def views(self) -> list[ChannelView]:
        """Return what waits for whom, and what was sent."""
        backlogs = {follower.name: follower.backlog for follower in self._followers}
        return [
            _view_of(carrier, backlogs.get(carrier.name, self._store.delivery_count(carrier.name)))
            for carrier in self.carriers
        ]

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


def _view_of(carrier: Carrier[Any], waiting: int) -> ChannelView:
    """Return how a carrier does."""
    done = carrier.statistics
    return ChannelView(
        name=carrier.name,
        kind=carrier.name.partition(":")[0],
        waiting=waiting,
        sent=done.sent,
        failures=done.failures,
        dropped=done.dropped,
        fault=carrier.fault,
    )
