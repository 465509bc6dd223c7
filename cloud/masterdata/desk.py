"""Everything that masterdata.toml asks for, put together: its sources, their jobs, the shifts they say."""

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cloud.correcting import Corrections
from cloud.masterdata.config import MasterDataTable
from cloud.plant import Plant
from cloud.store.port import Store
from cloud.views import RefusedRow

if TYPE_CHECKING:
    from cloud.jobs import Job
    from cloud.masterdata.sync import Sync


class MasterDataDesk:
    """The sources, each with what is remembered of it."""

    def __init__(
        self,
        tables: Iterable[MasterDataTable],
        store: Store,
        corrections: Corrections,
        *,
        base_plant: Callable[[], Plant],
        plant: Callable[[], Plant],
        now_us: Callable[[], int],
    ) -> None:
        """Make it.

        base_plant: the plant as plant.toml says it
        plant: the plant in force
        """
        self._store = store
        self._corrections = corrections
        self._base_plant = base_plant
        self._plant = plant
        self._now_us = now_us
        self._is_changed = threading.Event()
        self._tables = tuple(tables)
        self.syncs = [self._sync_of(table) for table in self._tables]

    def take(self, tables: Iterable[MasterDataTable]) -> None:
        """Put sources in force; what others said of shifts holds no longer, all else stays said."""
        before_and_after = [*self._tables, *(tables := tuple(tables))]
        self._tables = tables
        known = {sync.table.name: sync for sync in self.syncs}
        self.syncs = [
            before
            if (before := known.get(table.name)) is not None and before.table == table
            else self._sync_of(table)
            for table in self._tables
        ]
        if any(table.kind == "shift" for table in before_and_after):
            self._is_changed.set()

    def with_shifts(self, plant: Plant) -> Plant:
        """Return a plant with the shifts that planning systems said."""
        return with_schedule(plant, self._store, self._tables)

    def is_schedule_new(self) -> bool:
        """Tell whether planning systems say other shifts since this was last asked."""
        if not self._is_changed.is_set():
            return False
        self._is_changed.clear()
        return True

    def jobs(self) -> "list[Job]":
        """Return the jobs that read the sources, each in its own lane: one that hangs holds up no other."""
        from cloud.jobs import Job

        return [
            Job(name := f"masterdata-{sync.table.name}", float(sync.table.interval_secs), sync.run, lane=name)
            for sync in self.syncs
        ]

    def refused(self) -> list[RefusedRow]:
        """Return the rows of master data that cannot be used as things are."""
        return [row for sync in self.syncs for row in sync.refused()]

    def _sync_of(self, table: MasterDataTable) -> "Sync":
        from cloud.masterdata.schedule import Schedule
        from cloud.masterdata.sync import Sync

        if table.kind == "shift":
            return Schedule(
                table,
                self._store,
                base=self._base_plant,
                plant=self._plant,
                changed=self._is_changed.set,
                now_us=self._now_us,
            )
        return Sync(
            table,
            self._store,
            plant=self._plant,
            corrections=self._corrections.all,
            correct=self._corrections.correct,
            now_us=self._now_us,
        )


def with_schedule(plant: Plant, store: Store, tables: Iterable[MasterDataTable]) -> Plant:
    """Return a plant with the shifts that planning systems said, as the store remembers them."""
    sources = [table.name for table in tables if table.kind == "shift"]
    if not sources:
        return plant
    from cloud.masterdata.schedule import entries_of, scheduled

    return scheduled(plant, (entry for source in sources for entry in entries_of(store, source).values()))
