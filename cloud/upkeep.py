"""What keeps the store small, quick and safe: the work of the service's own jobs."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

from cloud import backup, locks, memory
from cloud.config import CloudConfig
from cloud.jobs import Job
from cloud.store.port import Store
from cloud.store.tiers import TieredStore

_HOUR_SECS: Final = 3600.0
_DAY_SECS: Final = 24 * _HOUR_SECS
_SETTLED_US: Final = 2 * 3_600_000_000
"""How old an hour is when its pieces are joined."""
_HOURS_AT_ONCE: Final = 50
_DAYS_AT_ONCE: Final = 10


def jobs(config: CloudConfig, store: Store, now_us: Callable[[], int]) -> list[Job]:
    """Return the service's own jobs."""
    found = [
        Job("join", 60.0, lambda: _join(store, now_us())),
        Job("memory", 60.0, _give_back),
        Job("dead-letters", _HOUR_SECS, lambda: _forget_dead_letters(store, config.cloud.dead_letters_max)),
    ]
    if isinstance(store, TieredStore):
        tiers = store
        after, keep = config.history.after_days, config.history.keep_days
        found.append(Job("history", _HOUR_SECS, lambda: _archive(tiers, _days_ago(now_us(), after))))
        if keep:
            found.append(Job("retention", _DAY_SECS, lambda: _forget(tiers, _days_ago(now_us(), keep))))
    if config.backup.folder is not None:
        every_secs = config.backup.every_hours * _HOUR_SECS
        found.append(Job("backup", every_secs, lambda: _back_up(config, store, now_us())))
    return found


def _days_ago(now_us: int, days: int) -> date:
    return datetime.fromtimestamp(now_us / 1e6, UTC).date() - timedelta(days=days)


def _join(store: Store, now_us: int) -> str:
    hours = store.compact(now_us - _SETTLED_US, _HOURS_AT_ONCE)
    return f"{hours} hours of machines joined" if hours else ""


def _give_back() -> str:
    memory.give_back()
    return ""


def _forget_dead_letters(store: Store, keep: int) -> str:
    dropped = store.forget_dead_letters(keep)
    return f"{dropped} dead letters dropped" if dropped else ""


def _archive(store: TieredStore, before: date) -> str:
    moved = store.archive(before, limit=_DAYS_AT_ONCE)
    return f"moved to the history: {', '.join(f'{day.site} {day.day}' for day in moved)}" if moved else ""


def _forget(store: TieredStore, before: date) -> str:
    sites = {partition.site for partition in store.history.partitions()}
    gone = []
    for site in sorted(sites):
        if any(partition.day < before for partition in store.history.partitions(site)):
            locks.forget_before(store, site, before)
            gone += store.history.forget(site, before)
    return f"{len(gone)} days left the history" if gone else ""


def _back_up(config: CloudConfig, store: Store, now_us: int) -> str:
    folder = config.backup.folder
    assert folder is not None
    target = folder / backup.file_name(now_us)
    size = backup.back_up(store, config.history_folder, target)
    backup.forget(folder, config.backup.keep)
    return f"{target.name}, {size / 1e6:.1f} MB"
